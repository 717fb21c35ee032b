"""Optimisers and learning-rate schedules: a schedule is a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import nn

Schedule = Literal["constant", "linear", "cosine"]
MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


def make_optimizer(
    params: dict[str, nn.Parameter], optimizer: str | MakeOptimizer, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """An optimiser over named parameters.

    Args:
        params: what is trained. optimizer: ``adamw``, or a function of the parameters.
        lr, weight_decay: of ``adamw``; decay touches matrices only, never biases, norms and other vectors.

    Raises:
        ValueError: for an unknown name.
    """
    if callable(optimizer):
        return optimizer(params.values())
    if optimizer != "adamw":
        raise ValueError(f"optimizer must be 'adamw' or a function of the parameters, not {optimizer!r}")
    matrices = [p for p in params.values() if p.ndim >= 2]
    vectors = [p for p in params.values() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    # One kernel over all parameters where there is one: with small models the loop over them takes more than the step.
    fused = all(p.device.type in ("cpu", "cuda") for p in params.values())
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, fused=fused)


def schedule_factor(step: int, schedule: Schedule, warmup: float, total: int | None) -> float:
    """What the learning rate is multiplied by at update ``step``, counted from 0.

    Args:
        warmup: steps of linear rise, or a fraction of ``total`` if below 1. total: where ``linear`` and ``cosine``
            reach 0.

    Raises:
        ValueError: where a schedule or a fractional warm-up needs ``total`` and there is none.

    >>> [round(schedule_factor(s, "linear", 2, 6), 2) for s in range(7)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    if schedule not in ("constant", "linear", "cosine"):
        raise ValueError(f"schedule must be 'constant', 'linear' or 'cosine', not {schedule!r}")
    if total is None and (schedule != "constant" or 0 < warmup < 1):
        raise ValueError(f"schedule={schedule!r} with warmup={warmup} needs total_steps")
    rise = warmup * total if 0 < warmup < 1 and total is not None else warmup
    if step < rise:
        return min(1.0, (step + 1) / rise)
    if schedule == "constant" or total is None:
        return 1.0
    done = min(1.0, (step - rise) / max(1.0, total - rise))
    return 1.0 - done if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
