"""A small denoising network for points."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PointNet(nn.Module):
    """Residual layers on a point, its time as waves, and a condition.

    Args:
        size: numbers of a point. condition: numbers of a condition, 0 for none. width, depth: of the layers.
        scale: what times are divided by, so that they lie between 0 and 1.
    """

    def __init__(self, size: int, condition: int = 0, *, width: int = 128, depth: int = 3, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.first = nn.Linear(size + 16 + condition, width)
        self.layers = nn.ModuleList(nn.Sequential(nn.SiLU(), nn.Linear(width, width)) for _ in range(depth))
        self.last = nn.Linear(width, size)

    def forward(self, x: Tensor, time: Tensor, condition: Tensor | None = None) -> Tensor:
        """``[N, size]``, ``[N]``, ``[N, condition]`` to ``[N, size]``."""
        angles = (time / self.scale)[:, None].to(x) * torch.pi * 2.0 ** torch.arange(8, device=x.device)
        parts = [x, angles.sin(), angles.cos()] + ([] if condition is None else [condition.to(x)])
        h = self.first(torch.cat(parts, -1))
        for layer in self.layers:
            h = h + layer(h)
        return self.last(torch.nn.functional.silu(h))
