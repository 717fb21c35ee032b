"""Rows of different kinds to different rewards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from rewardkit.credit.placement import leaves
from rewardkit.protocols import Reward
from rewardkit.registry import entry
from rewardkit.rewards.base import RewardBase, widest
from rewardkit.types import ERROR, Cost, Rollout, Scores


@entry(
    "rewards.compose:route",
    aliases=("routed_mixture", "task_router", "prompt_router", "gate_by_query_type", "hybrid_rule_model"),
    tags=("operator",),
)
class Route(RewardBase):
    """Each row is scored by the reward that its kind is sent to; rewards see the rows of their kind alone.

    Args:
        key: where ``sample.hidden`` says the kind. table: from kinds to rewards with an outcome.

    >>> from rewardkit.rewards.rules.text import ExactMatch, Length
    >>> from rewardkit.types import Sample
    >>> reward = Route("kind", {"sum": ExactMatch(), "open": Length()})
    >>> rows = [Sample("x", "4", hidden={"kind": "sum", "answer": "4"}), Sample("x", "abc", hidden={"kind": "open"})]
    >>> reward(Rollout(rows, torch.ones(2, 1))).outcome.tolist()
    [1.0, 3.0]
    """

    name = "route"

    def __init__(self, key: str, table: Mapping[str, Reward]) -> None:
        if not table:
            raise ValueError("Route needs at least one kind with its reward")
        self.key, self.table = key, dict(table)

    @property
    def scope(self) -> str:  # type: ignore[override]
        """The widest of its rewards'."""
        return widest(*self.table.values())

    def children(self) -> Mapping[str, Reward]:
        return self.table

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        """Outcomes ``[B]``; a row of a kind that is not in the table has status ERROR.

        Raises:
            ValueError: for a reward without an outcome, or with dense scores beside it: they would be lost.
        """
        device, kinds = rollout.mask.device, [s.hidden.get(self.key) for s in rollout.samples]
        outcome = torch.zeros(len(rollout), device=device)
        status = torch.full((len(rollout),), ERROR, device=device)
        why: list[str | None] = [f"no reward for {self.key}={k!r}; there are {sorted(self.table)}" for k in kinds]
        cost = Cost()
        for kind, reward in self.table.items():
            rows = [i for i, k in enumerate(kinds) if k == kind]
            if not rows:
                continue
            found = reward(rollout.select(rows), ctx)
            if found.outcome is None:
                raise ValueError(f"Route: the reward {reward.name!r} of {kind!r} has no outcome")
            dense = sorted({axis for _, _, leaf in leaves(found) for axis in leaf.dense})
            if dense:
                raise ValueError(
                    f"Route: the reward {reward.name!r} of {kind!r} has scores on {dense} beside its outcome"
                )
            outcome[rows], status[rows] = found.outcome.to(outcome), found.status.to(device)
            for i, row in enumerate(rows):
                why[row] = None if found.why is None else found.why[i]
            cost = cost + found.cost
        return Scores(outcome, why=why if any(why) else None, status=status, cost=cost)

    def update(self, rollout: Rollout, scores: Scores, **progress: Any) -> None:
        """Tell each reward what became of its own rows."""
        kinds = [s.hidden.get(self.key) for s in rollout.samples]
        for kind, reward in self.table.items():
            rows = [i for i, k in enumerate(kinds) if k == kind]
            if rows and hasattr(reward, "update"):
                own = Scores(scores.outcome[rows], status=scores.status[rows]) if scores.outcome is not None else scores
                reward.update(rollout.select(rows), own, **progress)
