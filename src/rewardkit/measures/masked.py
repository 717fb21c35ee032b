"""Sums and means over ``T`` that a NaN outside the mask cannot reach."""

from __future__ import annotations

import torch
from torch import Tensor


def masked(x: Tensor, mask: Tensor) -> Tensor:
    """``x`` where the mask is not zero, else 0: a NaN outside the mask never leaks through ``0 * nan``."""
    return x.masked_fill(mask == 0, 0)


def masked_sum(x: Tensor, mask: Tensor) -> Tensor:
    """Weighted sum over ``T``: ``[B, T] -> [B]``; NaN-safe outside the mask."""
    return (masked(x, mask) * mask).sum(-1)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Weighted mean over ``T``: ``[B, T] -> [B]``; 0 for a row without weight."""
    return masked_sum(x, mask) / mask.sum(-1).clamp(min=torch.finfo(mask.dtype).tiny)
