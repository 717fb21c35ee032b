"""What a network is told of a prompt: a tensor, several by name, or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Condition = Tensor | Mapping[str, Tensor] | None
"""With a leading axis of rows; a network that reads several things gets them by name."""

NAME = "condition"


def each(condition: Any, fn: Any) -> Any:
    """``fn`` of a condition's tensors, the form kept.

    >>> each({"text": torch.zeros(2, 3)}, len)
    {'text': 2}
    """
    if condition is None:
        return None
    return {k: fn(v) for k, v in condition.items()} if isinstance(condition, Mapping) else fn(condition)


def stacked(rows: Sequence[Any]) -> Any:
    """Conditions of single prompts as one with a leading axis.

    >>> stacked([{"text": torch.zeros(3)}] * 2)["text"].shape
    torch.Size([2, 3])
    """
    if isinstance(rows[0], Mapping):
        return {k: torch.stack([r[k] for r in rows]) for k in rows[0]}
    return torch.stack(list(rows))


def to_inputs(condition: Any) -> dict[str, Tensor]:
    """A condition as tensors of a rollout's ``inputs``."""
    if condition is None:
        return {}
    if isinstance(condition, Mapping):
        return {f"{NAME}.{k}": v for k, v in condition.items()}
    return {NAME: condition}


def from_inputs(inputs: Mapping[str, Any]) -> Any:
    """What :func:`to_inputs` put there."""
    if NAME in inputs:
        return inputs[NAME]
    return {k.removeprefix(f"{NAME}."): v for k, v in inputs.items() if k.startswith(f"{NAME}.")} or None
