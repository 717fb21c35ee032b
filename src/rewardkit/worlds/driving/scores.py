"""Gold of world ``driving``, and two rewards to train on: progress times penalties, and a sum of shaped terms.

All read the facts at the end of an observation, so that whatever environment writes them can be scored.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rewardkit.measures.masked import masked, masked_sum
from rewardkit.rewards.base import RewardBase
from rewardkit.rewards.factors import MultiplicativePenalty, TerminationPenalty, last_steps
from rewardkit.rewards.ops import Sum
from rewardkit.rewards.rules.observed import Observed, after, route_completion
from rewardkit.types import Rollout, Scores
from rewardkit.worlds.driving.physics import COLUMN, DT, LANE, LIMIT, ROUTE, wanted_speed

FACTORS = {"collision": 0.6, "red_run": 0.7}
"""What an infraction leaves of the score, as in CARLA's leaderboard."""


class DrivingScore(RewardBase):
    """Gold: route completion (0 to 100) times what infractions leave of it. One outcome a row, a whole episode each.

    Each of :data:`FACTORS` that happened multiplies it, and so does the share of the way that was driven on the lane.
    """

    name = "driving_score"

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        facts = {n: masked(after(rollout)[..., COLUMN[n]], rollout.mask) for n in ("progress", "off_lane", *FACTORS)}
        done_B = facts["progress"].sum(-1)
        off_B = (facts["progress"] * facts["off_lane"]).sum(-1) / done_B.clamp(min=1e-6)
        score_B = done_B * (1 - off_B)
        for name, factor in FACTORS.items():
            score_B = torch.where(facts[name].amax(-1) > 0.5, factor * score_B, score_B)
        return Scores(score_B, before={"route_completion": Scores(done_B)})


driving_score = DrivingScore()


def simple(*, size: float = 1.0, extra: float = 4.0, threshold: float = 3.0) -> Sum:
    """CaRL's reward: progress times soft penalties, minus a little where an infraction ended the episode.

    A step off the lane earns nothing; one above the limit less, nothing from ``threshold`` metres a second above it; a
    time to collision that was too short lately halves it; discomfort and driving beside the middle take up to half.

    Args:
        size: what a bad end costs, in per cent of the route. extra: what a collision or a red light costs besides.

    >>> simple().name
    'progress + termination'
    """
    penalised = MultiplicativePenalty(route_completion(COLUMN["progress"]), *_factors(threshold))
    return penalised + _ended(size, extra)


def subtracted(*, size: float = 1.0, extra: float = 4.0, threshold: float = 3.0) -> Sum:
    """The mistake to make with :func:`simple`: what each factor would have taken of a whole step is subtracted.

    A step at the speed limit is worth ``100 * LIMIT * DT / ROUTE`` per cent; a penalty costs its share of that whether
    or not the step made progress.

    >>> len(subtracted().terms)
    7
    """
    whole = 100 * LIMIT * DT / ROUTE
    lost = [(f >> _lost, -whole) for f in _factors(threshold)]
    return Sum([(route_completion(COLUMN["progress"]), 1.0), *lost, (_ended(size, extra), 1.0)])


def _lost(kept: Tensor) -> Tensor:
    return 1 - kept


def _factors(threshold: float) -> tuple[Observed, ...]:
    """The soft penalties, each the share of a step's progress that is kept."""
    return (
        Observed(COLUMN["off_lane"], lambda x: 1 - x, name="off_lane"),
        Observed(COLUMN["excess"], lambda x: (1 - x / threshold).clamp(min=0), name="speeding"),
        Observed(COLUMN["danger"], lambda x: 1 - 0.5 * x, name="time_to_collision"),
        Observed(COLUMN["harsh"], lambda x: 1 - 0.5 * x, name="comfort"),
        Observed(COLUMN["aside"], lambda x: 1 - 0.5 * ((x - 0.3) / (LANE - 0.3)).clamp(0, 1), name="lane_centre"),
    )


def _ended(size: float, extra: float) -> TerminationPenalty:
    return TerminationPenalty(size, *(Observed(COLUMN[n], name=n) for n in FACTORS), extra_size=extra)


class Steady(RewardBase):
    """``1 - |v - target| / limit`` at each step, the target that of a careful driver who sees car and light ahead."""

    name = "target_speed"

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        seen = after(rollout)
        target_BT = torch.from_numpy(wanted_speed(seen.cpu().numpy())).to(seen)
        close_BT = 1 - (LIMIT * seen[..., COLUMN["speed"]] - target_BT).abs() / LIMIT
        return _dense(close_BT, rollout)


class Crashed(RewardBase):
    """``-1`` at the step by which the environment ended the episode, and ``-v`` (metres a second) more for a collision
    or a red light."""

    name = "terminal"

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        seen = after(rollout)
        worst_BT = torch.stack([seen[..., COLUMN[n]] for n in FACTORS]).amax(0)
        speed_BT = LIMIT * seen[..., COLUMN["speed"]]
        return _dense(-last_steps(rollout) * (1 + worst_BT * speed_BT), rollout)


def additive() -> Sum:
    """The usual shaped reward, a sum of terms as in Roach (Zhang et al. 2021, arXiv:2108.08265, section 3.2).

    Speed near a target, minus half the offset in metres, minus the heading's error in radians, minus 0.1 where the
    wheel turned much, and at a bad end -1, less the speed if it was a collision or a red light.

    >>> list(additive().children())
    ['target_speed', 'position', 'rotation', 'wheel', 'terminal']
    """
    return Sum(
        [
            (Steady(), 1.0),
            (Observed(COLUMN["offset"], lambda x: 2 * x.abs(), name="position"), -0.5),
            (Observed(COLUMN["heading"], lambda x: x.abs() / 2, name="rotation"), -1.0),
            (Observed(COLUMN["steering"], lambda x: (x.abs() > 0.5).to(x.dtype), name="wheel"), -0.1),
            (Crashed(), 1.0),
        ]
    )


def _dense(values: Tensor, rollout: Rollout) -> Scores:
    return Scores(
        dense={"token": masked(values, rollout.mask)}, before={"sum": Scores(masked_sum(values, rollout.mask))}
    )
