"""What is trained of a rollout, as a list of positions, and back."""

from __future__ import annotations

from torch import Tensor


class Live:
    """The positions of a mask ``[B, T]`` that are not 0, ``N`` of them.

    Where all are, which is so for rows of single steps, nothing is copied.

    >>> import torch
    >>> live = Live(torch.tensor([[1.0, 1.0], [1.0, 0.0]]))
    >>> live.put(live.take(torch.tensor([[1.0, 2.0], [3.0, 9.0]]))).tolist()
    [[1.0, 2.0], [3.0, 0.0]]
    """

    def __init__(self, mask: Tensor) -> None:
        self.where = mask > 0
        self.every = bool(self.where.all())

    def take(self, x: Tensor) -> Tensor:
        """``[B, T, ...] -> [N, ...]``."""
        return x.flatten(0, 1) if self.every else x[self.where]

    def put(self, values: Tensor) -> Tensor:
        """``[N, ...] -> [B, T, ...]``, 0 elsewhere."""
        shape = self.where.shape
        if self.every:
            return values.reshape(*shape, *values.shape[1:])
        where = self.where.reshape(*shape, *[1] * (values.ndim - 1))
        return values.new_zeros(*shape, *values.shape[1:]).masked_scatter(where, values)
