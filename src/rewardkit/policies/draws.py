"""Which rows share the draws by which given outputs are noised or masked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from torch import Tensor

from rewardkit.types import Sample


def shared_keys(samples: Sequence[Sample], group: Tensor | None = None) -> list[Any]:
    """A key for each row; rows with one key share their draws.

    Args:
        group: long ``[B]``, such as ``Rows.group`` of :mod:`rewardkit.data.rows`, by which the sides of a comparison
            share draws and two comparisons of one prompt do not. Default: rows of one prompt share them.

    Raises:
        ValueError: for a group of another length.

    >>> import torch
    >>> shared_keys([Sample("x", "a"), Sample("x", "b")], torch.tensor([3, 4]))
    [3, 4]
    """
    if group is None:
        return [prompt_key(s.prompt) for s in samples]
    if tuple(group.shape) != (len(samples),):
        raise ValueError(f"encode: group must be [{len(samples)}], a number a sample, not {list(group.shape)}")
    return group.tolist()


def prompt_key(prompt: Any) -> Any:
    """Equal prompts have equal keys, whatever they are. The ``repr`` of a large tensor leaves most of it out."""
    if isinstance(prompt, (Tensor, np.ndarray)):
        array = prompt.detach().cpu().double().numpy() if isinstance(prompt, Tensor) else prompt
        return array.shape, array.tobytes()
    if isinstance(prompt, Mapping):
        return tuple((k, prompt_key(v)) for k, v in prompt.items())
    if isinstance(prompt, (list, tuple)):
        return tuple(prompt_key(v) for v in prompt)
    if is_dataclass(prompt):
        return type(prompt), *(prompt_key(getattr(prompt, f.name)) for f in fields(prompt))
    return repr(prompt)
