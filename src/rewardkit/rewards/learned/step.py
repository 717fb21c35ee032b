"""Reward models on the steps of a trajectory: learned from comparisons of segments, paid step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rewardkit.measures.masked import masked, masked_sum
from rewardkit.policies.control.pieces import Trajectory
from rewardkit.policies.modes import evaluating
from rewardkit.protocols import Want
from rewardkit.registry import entry
from rewardkit.rewards.base import RewardBase
from rewardkit.types import Rollout, Sample, Scores


class StepNet(nn.Module):
    """A small network on one step: observation, action and the observation after.

    Args:
        size: of both observations and the action together. width: of the two layers between.
    """

    def __init__(self, size: int, width: int = 64) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(size, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1)
        )

    def forward(self, before: Tensor, actions: Tensor, after: Tensor) -> Tensor:
        return self.net(torch.cat([before, actions, after], -1))[..., 0]


@entry(
    "rewards.learned:step",
    aliases=("trajectory_rm",),
    tags=("reward-model", "control", "dense", "differentiable"),
    source="Christiano et al. 2017, arXiv:1706.03741, section 2.2.3: a segment is worth the sum of its steps",
)
class StepReward(RewardBase):
    """A network on a step, summed over a segment: ``bradley_terry`` fits it to comparisons of segments.

    Args:
        module: ``(before [N, D], actions [N, A], after [N, D]) -> [N]``, differentiable in all three.
        dense: pay each step, along ``token``; else one outcome a row, the sum.

    >>> reward = StepReward(StepNet(2 + 1 + 2, width=4))
    >>> path = Trajectory(np.zeros((4, 2), np.float32), np.zeros((3, 1), np.float32), np.zeros(3))
    >>> reward(Rollout([Sample(0, path)], torch.ones(1, 3))).dense["token"].shape
    torch.Size([1, 3])
    """

    differentiable = True

    def __init__(self, module: nn.Module, *, dense: bool = True, name: str = "steps") -> None:
        self.module, self.dense, self.name = module, dense, name
        self.shift, self.scale = 0.0, 1.0

    def encode(self, samples: Sequence[Sample]) -> Rollout:
        """Trajectories, or segments of them, as rows to be fitted on.

        Raises:
            ValueError: for an output that is none.
        """
        paths = []
        for s in samples:
            if not isinstance(s.output, Trajectory):
                raise ValueError(f"StepReward reads a Trajectory, not {type(s.output).__name__}")
            paths.append(s.output)
        length = max((len(p) for p in paths), default=0)
        mask = torch.tensor([[float(t < len(p)) for t in range(length)] for p in paths]).reshape(len(paths), length)
        inputs = {
            "before": _padded([p.observations[:-1] for p in paths], length),
            "actions": _padded([p.actions.reshape(len(p), -1) for p in paths], length),
            "after": _padded([p.observations[1:] for p in paths], length),
        }
        return Rollout(list(samples), mask, inputs=inputs)

    def of(self, before: Tensor, actions: Tensor, after: Tensor) -> Tensor:
        """What steps are worth, ``[N]``, with gradients."""
        return (self.module(before, actions, after).reshape(len(before)) - self.shift) / self.scale

    def steps(self, rollout: Rollout) -> Tensor:
        """``[B, T]`` of an encoded rollout, 0 outside the mask, with gradients."""
        live = rollout.mask > 0
        found = self.of(*(rollout.inputs[k][live] for k in ("before", "actions", "after")))
        return found.new_zeros(live.shape).masked_scatter(live, found)

    def evaluate(self, rollout: Rollout, want: Sequence[Want] = ("scores",)) -> dict[str, Tensor]:
        """``scores`` ``[B]``, the sum over the steps, with gradients.

        Raises:
            KeyError: for anything else in ``want``.
        """
        if list(want) != ["scores"]:
            raise KeyError(f"a reward model evaluates 'scores' only, not {list(want)}")
        return {"scores": self.steps(rollout).sum(-1)}

    @torch.no_grad()
    def standardise(self, samples: Sequence[Sample]) -> StepReward:
        """Mean 0 and deviation 1 over the steps of these samples, in place: comparisons fix neither."""
        self.shift, self.scale = 0.0, 1.0
        own = self.encode(samples)
        values = self.steps(own)[own.mask > 0]
        self.shift, self.scale = float(values.mean()), max(float(values.std()), 1e-6)
        return self

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        """Scores of a rollout's trajectories: dropout off, no gradients.

        Raises:
            ValueError: for a row whose trajectory is longer than the rollout, as of rows taken apart into steps.
        """
        own = self.encode(rollout.samples)
        length = rollout.mask.shape[1]
        if own.mask.shape[1] > length:
            raise ValueError(
                f"a trajectory of {own.mask.shape[1]} steps in a rollout of {length} positions: score whole rows, then "
                "take them apart"
            )
        with torch.no_grad(), evaluating(self.module):
            first = next(self.module.parameters(), None)
            found = self.steps(own if first is None else own.to(first.device)).to(rollout.mask.device)
        paid = masked(torch.nn.functional.pad(found, (0, length - found.shape[1])), rollout.mask)
        total = Scores(masked_sum(paid, (rollout.mask > 0).to(paid.dtype)))
        return Scores(dense={"token": paid}, before={"return": total}) if self.dense else total

    def state_dict(self) -> dict[str, Any]:
        """Weights, shift and scale."""
        return {"module": self.module.state_dict(), "shift": self.shift, "scale": self.scale}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self.module.load_state_dict(state["module"])
        self.shift, self.scale = state["shift"], state["scale"]


def _padded(rows: Sequence[np.ndarray], length: int) -> Tensor:
    whole = np.zeros((len(rows), length, rows[0].shape[-1] if rows else 0), dtype=np.float32)
    for i, row in enumerate(rows):
        whole[i, : len(row)] = row.reshape(len(row), -1)
    return torch.from_numpy(whole)
