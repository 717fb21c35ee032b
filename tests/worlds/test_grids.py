"""Gridworlds and listed decision processes: exact values against long walks, and a plan that no other beats."""

from __future__ import annotations

import itertools

import pytest
import torch

from rewardkit.worlds.tables.grids import GOAL, GridWorld
from rewardkit.worlds.tables.mdp import MDP, greedy

WEIGHTS = torch.tensor([-0.1, -1.0, 3.0, -2.0], dtype=torch.float64)


def random_policy(world, seed=0):
    chance = torch.Generator().manual_seed(seed)
    return torch.rand(len(world.cells), 4, generator=chance, dtype=torch.float64).softmax(1)


def test_values_are_the_sum_over_time() -> None:
    world = GridWorld(4, seed=1, slip=0.2)
    policy, reward = random_policy(world), world.features @ WEIGHTS
    moved = torch.einsum("sa,sat->st", policy, world.mdp.transitions)
    paid, total, at = (policy * reward).sum(1), torch.zeros(16, dtype=torch.float64), torch.eye(16, dtype=torch.float64)
    for _ in range(600):
        total, at = total + at @ paid, world.mdp.discount * at @ moved
    torch.testing.assert_close(world.mdp.values(policy, reward), total)


def test_the_optimum_is_above_every_deterministic_policy() -> None:
    world = GridWorld(2, seed=0, mud=0, slip=0.3)
    reward = world.features @ WEIGHTS
    best = world.mdp.optimal(reward).amax(1)
    for actions in itertools.product(range(4), repeat=4):
        policy = torch.nn.functional.one_hot(torch.tensor(actions), 4).double()
        assert bool((world.mdp.values(policy, reward) <= best + 1e-9).all())


def test_the_plan_reaches_what_value_iteration_says() -> None:
    world = GridWorld(4, seed=2)
    q = world.mdp.optimal(world.features @ WEIGHTS)
    torch.testing.assert_close(world.mdp.action_values(greedy(q), world.features @ WEIGHTS), q)


def test_successor_features_times_weights_are_values() -> None:
    world = GridWorld(4, seed=3, slip=0.1)
    policy = random_policy(world)
    torch.testing.assert_close(
        world.mdp.action_values(policy, world.features) @ WEIGHTS,
        world.mdp.action_values(policy, world.features @ WEIGHTS),
    )


def test_an_end_has_no_future_and_entering_it_is_paid() -> None:
    world = GridWorld(3, seed=0, goal=8)
    assert int(world.kinds[8]) == GOAL
    assert float(world.mdp.transitions[8].sum()) == 0.0
    right = 3
    assert float(world.features[7, right, GOAL]) == 1.0
    assert float(world.mdp.transitions[7, right].sum()) == 0.0


def test_segments_are_walks_of_the_world_and_stop_at_ends() -> None:
    world = GridWorld(4, seed=0, slip=0.2)
    over = world.mdp.transitions.sum((1, 2)) == 0
    for s in world.segments(50, 5, seed=0):
        states, actions = s.output.observations, s.output.actions
        assert len(states) == len(actions) + 1 <= 6
        assert all(world.entered[a, b, c] > 0 for a, b, c in zip(states[:-1], actions, states[1:], strict=True))
        assert not bool(over[states[:-1]].any())
    assert all(len(s.output) == 5 for s in world.segments(30, 5, seed=1, whole=True))


def test_what_is_no_decision_process_is_refused() -> None:
    with pytest.raises(ValueError, match="at most 1"):
        MDP(torch.ones(2, 1, 2), torch.ones(2), 0.9)
    with pytest.raises(ValueError, match=r"\[S, A, S\]"):
        MDP(torch.zeros(2, 1, 3), torch.ones(2), 0.9)
    with pytest.raises(ValueError, match="no room"):
        GridWorld(2, mud=9)
