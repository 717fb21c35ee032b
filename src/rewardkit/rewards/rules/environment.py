"""The environment's own reward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rewardkit.measures.masked import masked
from rewardkit.registry import entry
from rewardkit.rewards.base import RewardBase
from rewardkit.types import Rollout, Scores


@entry("rewards.rules:environment", tags=("control", "dense"))
class Environment(RewardBase):
    """What the environment paid at each step, ``rollout["env_rewards"]``, as dense scores.

    The sum over a row stands beside it for people to see; credit reads the steps. A rule that wants one number a row
    is put behind ``total``: ``chain(total, group_relative)``.

    >>> import torch
    >>> from rewardkit.types import Sample
    >>> rollout = Rollout([Sample(0)], torch.ones(1, 2), tensors={"env_rewards": torch.tensor([[1.0, 0.5]])})
    >>> scores = Environment()(rollout)
    >>> scores.dense["token"].tolist(), scores.before["return"].outcome.tolist()
    ([[1.0, 0.5]], [1.5])
    """

    name = "environment"

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        paid_BT = masked(rollout["env_rewards"], rollout.mask)
        return Scores(dense={"token": paid_BT}, before={"return": Scores(paid_BT.sum(-1))})
