"""Segments by return and by regret: against values worked out by the world, and what either of them can tell."""

from __future__ import annotations

import pytest
import torch

from rewardkit.rewards.learned.segments import SegmentReward
from rewardkit.training.learner import Learner
from rewardkit.worlds.tables.grids import GridWorld
from rewardkit.worlds.tables.mdp import greedy

WEIGHTS = torch.tensor([-0.3, -1.0, 3.0, -2.0], dtype=torch.float64)


def bank(world, *weights):
    policies = torch.stack([greedy(world.mdp.optimal(world.features @ w)) for w in weights])
    return {
        "policies": policies,
        "successor": torch.stack([world.mdp.action_values(p, world.features) for p in policies]),
    }


@pytest.mark.parametrize("slip", [0.0, 0.3])
def test_regret_is_what_the_actions_cost(slip: float) -> None:
    world = GridWorld(4, seed=0, slip=slip)
    best = world.mdp.optimal(world.features @ WEIGHTS)
    reward = SegmentReward(world.features, by="regret", weight=WEIGHTS, **bank(world, WEIGHTS))
    segments = world.segments(20, 4, seed=0)
    wanted = [
        sum(float(best[s, a] - best[s].max()) for s, a in zip(x.output.observations, x.output.actions, strict=False))
        for x in segments
    ]
    found = reward(reward.encode(segments)).outcome
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))
    assert bool((found <= 1e-9).all())


def test_on_a_deterministic_world_the_last_state_counts() -> None:
    """Without discount, minus the regret is the return and the value at the end, less the value at the beginning."""
    world = GridWorld(4, seed=1, discount=1 - 1e-9)
    value = world.mdp.optimal(world.features @ WEIGHTS).amax(1)
    regret = SegmentReward(world.features, by="regret", weight=WEIGHTS, **bank(world, WEIGHTS))
    returned = SegmentReward(world.features, by="return", weight=WEIGHTS)
    segments = world.segments(20, 3, seed=0, whole=True)
    first, last = ([int(s.output.observations[i]) for s in segments] for i in (0, -1))
    rows = regret.encode(segments)
    torch.testing.assert_close(
        regret(rows).outcome, returned(rows).outcome + value[last] - value[first], atol=1e-5, rtol=0
    )


def test_the_best_of_the_bank_moves_with_the_weights() -> None:
    world = GridWorld(4, seed=0)
    reward = SegmentReward(
        world.features, by="regret", weight=WEIGHTS, temperature=1e-3, **bank(world, WEIGHTS, -WEIGHTS)
    )
    for w in (WEIGHTS, -WEIGHTS):
        with torch.no_grad():
            reward.weight.copy_(w)
        q = world.mdp.optimal(world.features @ w)
        torch.testing.assert_close(reward.advantages().detach(), q - q.amax(1, keepdim=True), atol=1e-3, rtol=0)


def test_a_constant_moves_no_difference_of_returns_but_regrets() -> None:
    world = GridWorld(4, seed=0)
    segments = world.segments(20, 3, seed=0, whole=True)

    def gaps(by, shift):
        reward = SegmentReward(world.features, by=by, weight=WEIGHTS + shift, **bank(world, WEIGHTS, WEIGHTS + shift))
        found = reward(reward.encode(segments)).outcome
        return found[:10] - found[10:]

    torch.testing.assert_close(gaps("return", 0.0), gaps("return", 2.0))
    assert float((gaps("regret", 0.0) - gaps("regret", 2.0)).abs().mean()) > 0.1


def test_the_gradient_is_that_of_differences() -> None:
    world = GridWorld(3, seed=0, slip=0.1, mud=2)
    reward = SegmentReward(world.features, by="regret", weight=WEIGHTS, **bank(world, WEIGHTS, WEIGHTS.flip(0)))
    rows = reward.encode(world.segments(8, 3, seed=0))
    found = torch.autograd.grad(reward.evaluate(rows)["scores"].sum(), reward.weight)[0]
    for i in range(4):
        ends = []
        for step in (1e-5, -1e-5):
            with torch.no_grad():
                reward.weight[i] += step
                ends.append(float(reward.evaluate(rows)["scores"].sum()))
                reward.weight[i] -= step
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(float(found[i]), rel=1e-5, abs=1e-6)


def test_what_is_missing_is_named() -> None:
    world = GridWorld(3, seed=0)
    with pytest.raises(ValueError, match="needs a bank"):
        SegmentReward(world.features, by="regret")
    with pytest.raises(ValueError, match="'return' or 'regret'"):
        SegmentReward(world.features, by="guess")  # type: ignore[arg-type]
    reward = SegmentReward(world.features, by="return")
    with pytest.raises(KeyError, match="scores"):
        reward.evaluate(reward.encode(world.segments(1, 2, seed=0)), ("values",))
    assert list(Learner(reward).params) == ["weight"]
