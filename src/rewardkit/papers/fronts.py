"""What recipes with a reward-KL front share: the reward model, a run's checkpoints, and the area under the front."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from rewardkit.evals.frontier import kl_reward_frontier
from rewardkit.papers.kit import comparisons, reward_model
from rewardkit.papers.recipe import Run
from rewardkit.policies.language import LanguagePolicy
from rewardkit.protocols import Reward
from rewardkit.rewards.learned.scalar import ScalarReward
from rewardkit.worlds.tokens import LENGTH, Tokens

Point = dict[str, float]


@cache
def proxy_of(seed: int, smoke: bool) -> ScalarReward:
    """The reward model of a run, from 1,000 noisy comparisons of the base policy's replies."""
    run = Run(seed, smoke)
    world = Tokens(length=run.size(LENGTH, 2))
    base = world.base(steps=run.size(300, 2))
    return reward_model(base, comparisons(world, base, run.size(1000, 12), 10 + seed), seed, epochs=run.size(3.0, 0.1))


def point(world: Tokens, policy: LanguagePolicy, proxy: Reward, *, n: int, seed: int = 40_000) -> Point:
    """``kl`` (nats a reply to the start), ``gold`` and ``proxy`` on ``n`` fresh replies a prompt."""
    rollout = world.draw(policy, n, seed)
    found: dict[str, Any] = {"gold": world.gold(rollout).outcome, "proxy": proxy(rollout).outcome}
    return {"kl": world.kl(policy, rollout)} | {name: float(x.mean()) for name, x in found.items()}


def area(points: Sequence[Point], start: Point, figure: str, upto: float) -> float:
    """Mean height of the front over KL 0 to ``upto``, above the start.

    Between two points of the front a mixture of their policies reaches the straight line, see
    :func:`rewardkit.evals.frontier.reward_at_kl`; beyond the last one the front goes on level: nobody has to move.

    Args:
        points: of all runs and checkpoints of a method. start: of the policy that they began with.
        figure: ``gold`` or ``proxy``. upto: nats.

    >>> start = {"kl": 0.0, "gold": 1.0}
    >>> area([{"kl": 1.0, "gold": 2.0}], start, "gold", 2.0)
    0.75
    """
    every = [{**start, "kl": 0.0}, *points]
    front = kl_reward_frontier([max(0.0, p["kl"]) for p in every], [p[figure] for p in every])
    kls, heights = (np.array(x) for x in zip(*front, strict=True))
    grid = np.unique([*kls[kls < upto], 0.0, upto])
    return float(np.trapezoid(np.interp(grid, kls, heights) - start[figure], grid) / upto)
