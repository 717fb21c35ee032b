"""A primary and an auxiliary reward of an environment's steps, blended by weights that are learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rewardkit.policies.path import PathValue
from rewardkit.protocols import Want
from rewardkit.registry import entry
from rewardkit.rewards.base import RewardBase
from rewardkit.rewards.learned.segments import steps_of
from rewardkit.types import Rollout, Scores


@entry(
    "rewards.compose:bilevel_blend",
    tags=("control", "dense", "differentiable", "second-order"),
    source="Gupta et al. 2023, Behavior Alignment via Reward Function Optimization, arXiv:2310.19007, eq. 4",
)
class BilevelBlend(RewardBase):
    """``phi1(s, a) + phi2(s, a) * primary(s, a) + phi3(s, a) * auxiliary(s, a)``, at first the plain sum of the two.

    What trains the weights is :func:`rewardkit.loops.bilevel.bilevel`, by the primary reward alone.

    Args:
        primary, auxiliary: ``[S, A]``, what a step pays.

    >>> blend = BilevelBlend(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.0]]))
    >>> blend.table.tolist()
    [[0.5, 1.0]]
    """

    name, differentiable = "blend", True

    def __init__(self, primary: Tensor, auxiliary: Tensor) -> None:
        if primary.shape != auxiliary.shape or primary.ndim != 2:
            raise ValueError(
                f"BilevelBlend: primary and auxiliary must be [S, A] alike, not {tuple(primary.shape)} and "
                f"{tuple(auxiliary.shape)}"
            )
        self.primary, self.auxiliary = primary, auxiliary
        self.module = nn.Module()
        weights = torch.stack([torch.zeros_like(primary), torch.ones_like(primary), torch.ones_like(primary)])
        self.module.register_parameter("weights", nn.Parameter(weights))

    @property
    def weights(self) -> Tensor:
        """``phi1, phi2, phi3``: ``[3, S, A]``."""
        return self.module.weights  # type: ignore[return-value]

    @property
    def table(self) -> Tensor:
        """The blended reward ``[S, A]``, with gradients."""
        bias, mine, theirs = self.weights
        return bias + mine * self.primary + theirs * self.auxiliary

    def evaluate(self, rollout: Rollout, want: Sequence[Want] = ()) -> dict[str, Tensor]:
        """``path_value`` ``[B]`` of a :class:`rewardkit.policies.path.PathValue`, whose outputs are the table.

        Raises:
            KeyError: for anything else in ``want``.
        """
        found = {}
        for name in want:
            if not isinstance(name, PathValue):
                raise KeyError(f"a blended reward evaluates a PathValue of its table, not {name!r}")
            found["path_value"] = name.fn(self.table, rollout.samples)
        return found

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        """What each step of the samples' trajectories is paid, states and actions as numbers; without gradients."""
        states, actions, mask = steps_of(rollout.samples)
        with torch.no_grad():
            return Scores(dense={"token": self.table[states, actions] * mask})
