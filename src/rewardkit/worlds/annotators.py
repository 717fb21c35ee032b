"""Simulated annotators that worlds share: who wins a comparison, and what is written down of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from rewardkit.types import Judgement, Sample


def judged(first: Sequence[Sample], second: Sequence[Sample], won: Iterable[bool]) -> list[Judgement]:
    """One comparison a pair.

    Args:
        won: whether the first of each pair is the better.

    >>> [j.rank for j in judged([Sample("x", "a")], [Sample("x", "b")], [False])]
    [(1, 0)]
    """
    return [
        Judgement((a, b), rank=(0, 1) if w else (1, 0), annotator="simulated")
        for a, b, w in zip(first, second, won, strict=True)
    ]


def bradley_terry(first: Sequence[Sample], second: Sequence[Sample], gaps: Tensor, *, seed: int) -> list[Judgement]:
    """Comparisons that the first of a pair wins with probability ``sigmoid(gap)``.

    Args:
        gaps: ``[N]``, by how much the first is better, in nats.

    >>> bradley_terry([Sample("x", "a")], [Sample("x", "b")], torch.tensor([99.0]), seed=0)[0].rank
    (0, 1)
    """
    chance = torch.Generator().manual_seed(seed)
    return judged(first, second, (torch.rand(len(gaps), generator=chance) < torch.sigmoid(gaps)).tolist())


def first_wins(gaps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """bool ``[N]``: the same choice, for worlds that draw by numpy.

    >>> first_wins(np.array([1e3, -1e3]), np.random.default_rng(0)).tolist()
    [True, False]
    """
    return rng.random(len(gaps)) < 1 / (1 + np.exp(-np.clip(gaps, -50, 50)))
