"""How well a verdict's grades agree with a known ranking."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import torch

from rewardkit.registry import entry
from rewardkit.rewards.base import RewardBase
from rewardkit.types import ERROR, OK, Rollout, Scores


def kendall(grades: Sequence[float], rank: Sequence[int]) -> float:
    """(concordant - discordant) pairs over the pairs that the ranking tells apart; equal grades count 0.

    >>> kendall([9, 5, 1], [0, 1, 2]), kendall([5, 5], [0, 1]), kendall([1, 2], [0, 1])
    (1.0, 0.0, -1.0)
    """
    pairs = [
        (i, j) if rank[i] < rank[j] else (j, i) for i, j in combinations(range(len(rank)), 2) if rank[i] != rank[j]
    ]
    if not pairs:
        return 0.0
    return sum((grades[i] > grades[j]) - (grades[i] < grades[j]) for i, j in pairs) / len(pairs)


@entry(
    "rewards.rules:rank_correlation",
    aliases=("rank_agreement", "kendall_tau"),
    tags=("rule", "judge", "verifiable"),
    source="URPO, arXiv:2507.17515: rank agreement of a referee's scores with the known ranking",
)
class RankAgreement(RewardBase):
    """:func:`kendall` of the grades in an output and ``hidden["rank"]`` (0 the best).

    Args:
        parse: from an output and the number of grades expected to the grades, or ``None``. failed: the score of a
            verdict that cannot be read: the judge's failure, and not an error.

    >>> from rewardkit.types import Sample
    >>> digits = lambda said, k: [float(c) for c in said] if len(said) == k else None
    >>> rows = [Sample("x", "95", hidden={"rank": (0, 1)}), Sample("x", "9", hidden={"rank": (0, 1)})]
    >>> RankAgreement(digits)(Rollout(rows, torch.ones(2, 1))).outcome.tolist()
    [1.0, -1.0]
    """

    name = "rank_agreement"

    def __init__(self, parse: Callable[[Any, int], Sequence[float] | None], *, failed: float = -1.0) -> None:
        self.parse, self.failed = parse, failed

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        values, status = [], []
        for sample in rollout.samples:
            rank = sample.hidden.get("rank")
            grades = None if rank is None else self.parse(sample.output, len(rank))
            values.append(self.failed if grades is None or rank is None else kendall(grades, rank))
            status.append(ERROR if rank is None else OK)
        device = rollout.mask.device
        return Scores(
            torch.tensor(values, device=device),
            why=[None if s == OK else "sample.hidden has no 'rank'" for s in status] if ERROR in status else None,
            status=torch.tensor(status, device=device),
        )
