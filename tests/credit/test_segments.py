"""Credit of actions of several tokens."""

from __future__ import annotations

import pytest
import torch

from rewardkit.credit.base import apply, tensors_needed
from rewardkit.credit.returns import gae
from rewardkit.credit.segments import macro_action_gae
from rewardkit.types import Rollout, Sample, Scores


def test_one_token_an_action_is_gae() -> None:
    chance = torch.Generator().manual_seed(0)
    rewards, values = torch.randn(2, 5, 7, generator=chance, dtype=torch.float64)
    mask = (torch.rand(5, 7, generator=chance) > 0.3).double()
    turn = torch.where(mask > 0, torch.arange(7), -1)
    end = torch.randn(5, generator=chance, dtype=torch.float64)
    found = macro_action_gae(rewards, values, turn, mask, end, gamma=0.9, lam=0.8)
    for name, x in gae(rewards, values, mask, end, gamma=0.9, lam=0.8).items():
        torch.testing.assert_close(found[name], x, rtol=1e-12, atol=1e-12)


def test_by_hand() -> None:
    """Two actions of two tokens with an observation between them; the second token's value is not read."""
    turn = torch.tensor([[0, 0, -1, 1, 1]])
    rewards = torch.tensor([[0.0, 0.25, 9.0, 0.5, 1.0]])
    values = torch.tensor([[1.0, 7.0, 7.0, 2.0, 7.0]])
    found = macro_action_gae(rewards, values, turn, (turn >= 0).float(), gamma=0.5, lam=0.5)
    last = 1.5 - 2.0
    first = (0.25 + 0.5 * 2.0 - 1.0) + 0.25 * last
    assert found["advantages"].tolist() == [[first, first, 0.0, last, last]]
    assert found["returns"].tolist() == [[first + 1.0, first + 1.0, 0.0, last + 2.0, last + 2.0]]


def test_the_discount_is_an_action_and_not_a_token() -> None:
    """However many tokens an action has, the first one's return is the reward discounted by the actions."""
    for tokens in (1, 2, 4):
        turn = torch.arange(3).repeat_interleave(tokens)[None]
        rewards = torch.zeros(1, 3 * tokens)
        rewards[0, -1] = 1.0
        zeros, mask = torch.zeros_like(rewards), torch.ones_like(rewards)
        found = macro_action_gae(rewards, zeros, turn, mask, gamma=0.5, lam=1.0)
        assert float(found["returns"][0, 0]) == 0.25
        assert float(gae(rewards, zeros, mask, gamma=0.5, lam=1.0)["returns"][0, 0]) == 0.5 ** (3 * tokens - 1)


def test_a_rollouts_turns_are_found_by_name() -> None:
    turn = torch.tensor([[0, 0, -1, 1]])
    rollout = Rollout([Sample("x", "y")], (turn >= 0).float(), segments={"turn": turn})
    found = apply(macro_action_gae, rollout.with_tensors(values=torch.zeros(1, 4)), Scores(torch.tensor([1.0])))
    assert found["returns"].tolist() == [[pytest.approx(0.99 * 0.95), pytest.approx(0.99 * 0.95), 0.0, 1.0]]
    assert tensors_needed(macro_action_gae) >= {"values"}
