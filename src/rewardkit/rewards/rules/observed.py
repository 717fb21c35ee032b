"""What an environment lets be seen, step by step, as rewards: one column of the observation that a step led to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from rewardkit.measures.masked import masked
from rewardkit.registry import entry
from rewardkit.rewards.base import RewardBase
from rewardkit.types import Rollout, Scores


def after(rollout: Rollout) -> Tensor:
    """The observations that the steps of a control policy led to, ``[B, T, D]``: an episode's last one is its own."""
    seen, reached = rollout.inputs["observations"], rollout.inputs["reached"]
    places_T = torch.arange(seen.shape[1], device=seen.device)
    lengths_B = torch.tensor([len(s.output) for s in rollout.samples], device=seen.device)
    at_end_BT = places_T == lengths_B[:, None] - 1
    return torch.where(at_end_BT[..., None], reached, torch.cat([seen[:, 1:], reached], 1))


@entry("rewards.rules:observed", tags=("control", "dense"))
class Observed(RewardBase):
    """A column of the observation after each step, as dense scores; the sum over a row stands beside it.

    Args:
        column: its index, from the end where negative. fn: elementwise, on what was seen; default as it is.

    >>> from rewardkit.types import Sample
    >>> inputs = {"observations": torch.tensor([[[0.0], [1.0]]]), "reached": torch.tensor([[[3.0]]])}
    >>> scores = Observed(0)(Rollout([Sample(0, [0, 0])], torch.ones(1, 2), inputs=inputs))
    >>> scores.dense["token"].tolist()
    [[1.0, 3.0]]
    """

    def __init__(self, column: int, fn: Callable[[Tensor], Tensor] | None = None, *, name: str = "observed") -> None:
        self.column, self.fn, self.name = column, fn, name

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        seen_BT = after(rollout)[..., self.column]
        found_BT = masked(seen_BT if self.fn is None else self.fn(seen_BT), rollout.mask)
        return Scores(dense={"token": found_BT}, before={"sum": Scores(found_BT.sum(-1))})


@entry(
    "rewards.rules:route_completion",
    tags=("control", "dense", "driving"),
    source="Jaeger et al. 2025, CaRL, arXiv:2504.17838",
)
def route_completion(column: int) -> Observed:
    """How much further along the route each step came, in per cent of it: a finished route is worth 100 in all.

    Args:
        column: of the observation, where the environment shows what the last step added (never less than 0).

    >>> route_completion(-1).name
    'route_completion'
    """
    return Observed(column, lambda x: x.clamp(min=0), name="route_completion")
