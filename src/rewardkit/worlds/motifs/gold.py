"""Where a motif stands in a sequence, how well it is spelt, and the rule of spacing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rewardkit.rewards.base import RewardBase
from rewardkit.types import Rollout, Scores

LETTERS = "ACGT"


def one_hot(sequence: str) -> Tensor:
    """``[L, 4]``; zeros for a hole.

    >>> one_hot("CA")[0].tolist()
    [0.0, 1.0, 0.0, 0.0]
    """
    return torch.tensor([[float(c == letter) for letter in LETTERS] for c in sequence])


@dataclass(frozen=True, eq=False)
class Motif:
    """A word with a weight matrix: at each place the consensus letter has probability ``purity``, the others share the
    rest.

    >>> Motif("ACG").weights.shape
    torch.Size([3, 4])
    """

    word: str
    purity: float = 0.85

    @property
    def weights(self) -> Tensor:
        """Probabilities ``[W, 4]``."""
        rest = (1 - self.purity) / 3
        return rest + (self.purity - rest) * one_hot(self.word)

    def strength(self, x: Tensor) -> Tensor:
        """Between 0 and 1 at every place: the root of the word's probability over its consensus'.

        Args:
            x: one-hot or relaxed ``[N, L, 4]``. Returns ``[N, L - W + 1]``, with gradients.
        """
        odds = (self.weights / self.weights.amax(1, keepdim=True)).log()
        return (0.5 * F.conv1d(x.transpose(1, 2), odds.T[None].to(x))[:, 0]).exp()


class MotifScore(RewardBase):
    """Gold: each motif's best place counts once, and a pair at the right distance counts twice more.

    ``max_i a_i + max_j b_j + 2 max_i a_i b_{i + W + gap}``, between 0 and 4: further copies add nothing.
    """

    name = "gold"

    def __init__(self, first: Motif, second: Motif, gap: int) -> None:
        self.first, self.second, self.gap = first, second, gap

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        return Scores(self.of([str(s.output) for s in rollout.samples]).to(rollout.mask.device))

    def of(self, sequences: list[str]) -> Tensor:
        """``[N]`` of sequences of one length."""
        x = torch.stack([one_hot(s) for s in sequences])
        a, b = self.first.strength(x), self.second.strength(x)
        apart = len(self.first.word) + self.gap
        pairs = a[:, : b.shape[1] - apart] * b[:, apart:]
        return a.amax(1) + b.amax(1) + 2 * pairs.amax(1)
