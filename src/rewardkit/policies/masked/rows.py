"""Rows of ids of different lengths as padded tensors, and what a masked sequence is on its way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rewardkit.types import Sample


def padded(rows: Sequence[Tensor], value: Any, device: torch.device) -> Tensor:
    """Tensors ``[..., l]`` of different ``l`` as one ``[B, ..., L]``, filled on the right.

    >>> padded([torch.tensor([1, 2]), torch.tensor([3])], 0, torch.device("cpu")).tolist()
    [[1, 2], [3, 0]]
    """
    longest = max(r.shape[-1] for r in rows)
    return torch.stack([torch.nn.functional.pad(r, (0, longest - r.shape[-1]), value=value) for r in rows]).to(device)


def gumbel(seeds: Sequence[int], lengths: Sequence[int], kinds: int, device: torch.device) -> Tensor:
    """Standard Gumbel noise ``[B, L, kinds]``: each row from a seed of its own, whatever stands beside it."""
    drawn = []
    for seed, length in zip(seeds, lengths, strict=True):
        uniform = torch.rand((length, kinds), generator=torch.Generator().manual_seed(seed))
        drawn.append(standard_gumbel(uniform).transpose(0, 1))
    return padded(drawn, 0.0, device).transpose(1, 2)


def standard_gumbel(uniform: Tensor) -> Tensor:
    """Gumbel noise of uniform numbers."""
    return -(-uniform.clamp(1e-20, 1 - 1e-7).log()).log()


@dataclass(frozen=True, eq=False)
class Rows:
    """What the denoiser reads: ``ids`` ``[B, L]``, long, or probabilities ``[B, L, V]``; ``present`` bool ``[B, L]``;
    ``condition`` ``[B, C]``."""

    ids: Tensor
    present: Tensor
    condition: Tensor | None

    def select(self, rows: Tensor) -> Rows:
        """These rows, in this order."""
        condition = None if self.condition is None else self.condition[rows]
        return Rows(self.ids[rows], self.present[rows], condition)


@dataclass(frozen=True, eq=False)
class MaskedState:
    """``N`` partly masked sequences. See :class:`rewardkit.protocols.State`.

    Args:
        samples: what they began as. rows: their ids as they stand, masks among them.
        when: long ``[N, L]``, the step at which a position is unmasked, -1 for what was given. The plan is drawn at
            the start and does not depend on weights. now: steps taken. steps: of all. generator: draws the tokens.
    """

    samples: list[Sample]
    rows: Rows
    when: Tensor
    now: int
    steps: int
    generator: torch.Generator

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def done(self) -> Tensor:
        """Where no mask is left."""
        return (self.when < self.now).all(-1)

    def select(self, rows: Tensor) -> MaskedState:
        """These rows, in this order; the plan of a forked row is shared."""
        index = torch.as_tensor(rows, device=self.when.device)
        samples = [self.samples[i] for i in index.tolist()]
        return replace(self, samples=samples, rows=self.rows.select(index), when=self.when[index])
