"""Held-out metrics: called on a schedule, logged apart from the reward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from rewardkit.types import Measure

HeldOut = Mapping[str, Callable[[Any], Measure | float]]
"""Name -> function of the model that returns a figure."""


@torch.no_grad()
def measure(model: Any, metrics: HeldOut) -> dict[str, Measure]:
    """Call every metric on the model, in evaluation mode and without gradients; numbers become measures of one case."""
    model.module.eval()
    return as_measures({name: fn(model) for name, fn in metrics.items()})


def as_measures(found: Mapping[str, Measure | float]) -> dict[str, Measure]:
    """Plain numbers as measures of one case."""
    return {n: m if isinstance(m, Measure) else Measure(float(m), 1) for n, m in found.items()}


def flat(measures: Mapping[str, Measure]) -> dict[str, float]:
    """Figures for a log: the value under the metric's name, its interval under ``name_low`` and ``name_high``.

    >>> flat({"accuracy": Measure(0.5, 10, ci=(0.2, 0.8))})
    {'accuracy': 0.5, 'accuracy_low': 0.2, 'accuracy_high': 0.8}
    """
    found: dict[str, float] = {}
    for name, m in measures.items():
        found[name] = m.value
        if m.ci is not None:
            found[f"{name}_low"], found[f"{name}_high"] = m.ci
    return found
