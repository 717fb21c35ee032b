"""A batch that several ranks sampled: gathered for rewards and credit, divided again for training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from rewardkit.training.ranks import Ranks
from rewardkit.types import Rollout, Scores

Thing = TypeVar("Thing")


class Shared:
    """The whole batch and this rank's share of it. With one rank everything is handed through.

    Args:
        ranks: the processes of the run.
    """

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self._first = 0

    def share(self, things: Sequence[Thing]) -> list[Thing]:
        """This rank's consecutive part; all parts are equally long."""
        size = len(things) // self.ranks.count
        return list(things[self.ranks.index * size : (self.ranks.index + 1) * size])

    def gathered(self, rollout: Rollout) -> Rollout:
        """Every rank's rows, in order of the ranks, groups numbered apart."""
        if self.ranks.count == 1:
            return rollout
        everyone = self.ranks.gather(rollout.to("cpu"))
        self._first = sum(len(r) for r in everyone[: self.ranks.index])
        return Rollout.cat(everyone, regroup=True)

    def own(self, whole: Rollout, rows: int) -> Rollout:
        """This rank's rows of what :meth:`gathered` gave."""
        return whole if self.ranks.count == 1 else whole.select(range(self._first, self._first + rows))

    def on_main(self, score: Callable[[], Scores]) -> Scores:
        """Score once, on the main rank, and tell the others; an error there is raised on all of them."""
        if self.ranks.count == 1:
            return score()
        found: Scores | Exception | None = None
        if self.ranks.main:
            try:
                found = replace(score(), made_by=None)
            except Exception as error:
                found = error
        found = self.ranks.broadcast(found)
        if isinstance(found, Scores):
            return found
        raise found if isinstance(found, Exception) else RuntimeError("the main rank gave no scores")
