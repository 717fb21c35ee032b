"""A reward that is labelled for some rows only, and learned, while the loop runs, for the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from rewardkit.registry import entry
from rewardkit.rewards.base import RewardBase
from rewardkit.types import MISSING, Rollout, Scores

Fit = Callable[[Rollout, torch.Tensor], Mapping[str, float]]


@entry(
    "rewards.learned:meta_rm",
    aliases=("judgement_scorer", "loops:online_reward_update"),
    tags=("learned", "live", "judge"),
    source="RM-NLHF, arXiv:2601.07349: a MetaRM regresses the process reward and is updated every k policy steps",
)
class MetaReward(RewardBase):
    """``labelled`` where it knows, ``model`` where it is MISSING; the model is fitted to what ``labelled`` said.

    Args:
        labelled: a reward with status MISSING for rows that nobody annotated. model: a reward model that says the same
            of any row, in the same units.
        fit: ``fit(rows of the rollout, their rewards [N])``, one update or several of the model; its metrics are kept
            in ``seen``. every: turns of the loop between two updates; ``None`` leaves the model as it is.

    >>> from rewardkit.rewards.rules.text import Length
    >>> from rewardkit.rewards.rules.critique import CritiqueSimilarity
    >>> from rewardkit.types import Sample
    >>> meta = MetaReward(CritiqueSimilarity(str.split), Length(), fit=lambda rows, target: {"rows": len(rows)})
    >>> rows = Rollout([Sample("x", "ab", hidden={"critique": ("ab",)}), Sample("x", "abc")], torch.ones(2, 1))
    >>> scores = meta(rows)
    >>> meta.update(rows, scores, step=1)
    >>> scores.outcome.tolist(), meta.seen
    ([1.0, 3.0], [{'rows': 1}])
    """

    name = "meta"

    def __init__(self, labelled: RewardBase, model: RewardBase, *, fit: Fit, every: int | None = 1) -> None:
        if every is not None and every < 1:
            raise ValueError(f"every is a number of turns, at least 1, or None: {every}")
        self.labelled, self.model, self.fit, self.every = labelled, model, fit, every
        self.seen: list[Mapping[str, float]] = []

    def children(self) -> Mapping[str, Any]:
        return {"labelled": self.labelled, "model": self.model}

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        """The outcome of either; an error of the one that speaks for a row stays one."""
        known, guessed = self.labelled(rollout, ctx), self.model(rollout, ctx)
        if known.outcome is None or guessed.outcome is None:
            raise ValueError("MetaReward needs an outcome of both its rewards")
        use = known.status != MISSING
        return Scores(
            torch.where(use, known.outcome, guessed.outcome.to(known.outcome)),
            status=torch.where(use, known.status, guessed.status.to(known.status.device)),
            cost=known.cost + guessed.cost,
        )

    def update(self, rollout: Rollout, scores: Scores, **progress: Any) -> None:
        """Fit the model to the rows that were labelled, where it is its turn."""
        super().update(rollout, scores, **progress)
        if self.every is None or int(progress.get("step", 1)) % self.every:
            return
        known = self.labelled(rollout)
        rows = known.ok.nonzero()[:, 0]
        if len(rows) and known.outcome is not None:
            self.seen.append(self.fit(rollout.select(rows.to(rollout.mask.device)), known.outcome[rows]))
