"""Potential-based shaping: by hand, and against the table's own."""

from __future__ import annotations

import pytest
import torch

from rewardkit.credit.shaping import potential_shaping
from rewardkit.worlds.tables.grids import GridWorld


def test_by_hand_with_a_gap_and_a_cut() -> None:
    rewards = torch.tensor([[1.0, 9.0, 0.0]])
    potentials = torch.tensor([[2.0, 9.0, 3.0]])
    mask = torch.tensor([[1.0, 0.0, 1.0]])
    found = potential_shaping(rewards, potentials, mask, torch.tensor([4.0]), gamma=0.5)["rewards"]
    assert found.tolist() == [[1.0 + 1.5 - 2.0, 0.0, 0.0 + 2.0 - 3.0]]


def test_the_discounted_sum_moves_by_the_first_potential_alone() -> None:
    chance = torch.Generator().manual_seed(0)
    rewards, potentials = torch.randn(2, 3, 5, generator=chance).unbind()
    shaped = potential_shaping(rewards, potentials, torch.ones(3, 5), gamma=0.9)["rewards"]
    discount = 0.9 ** torch.arange(5)
    torch.testing.assert_close((shaped * discount).sum(1), (rewards * discount).sum(1) - potentials[:, 0])


def test_no_plan_changes() -> None:
    world = GridWorld(4, seed=0, slip=0.1)
    reward = world.features @ torch.tensor([-0.1, -1.0, 3.0, -2.0], dtype=torch.float64)
    potential = torch.randn(16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shaped = world.mdp.ahead(reward, potential) - potential[:, None]
    torch.testing.assert_close(world.mdp.optimal(shaped), world.mdp.optimal(reward) - potential[:, None])
    # One step of a walk, on a world without chance, is what the credit rule says.
    world = GridWorld(4, seed=0)
    s, a = 5, 3
    after = int(world.mdp.transitions[s, a].argmax())
    one = torch.ones(1, 1)
    by_rule = potential_shaping(one * 0.5, one * potential[s], one, potential[after][None], gamma=0.95)["rewards"]
    by_table = world.mdp.ahead(torch.full((16, 4), 0.5, dtype=torch.float64), potential)[s, a] - potential[s]
    assert float(by_rule) == pytest.approx(float(by_table), abs=1e-6)
