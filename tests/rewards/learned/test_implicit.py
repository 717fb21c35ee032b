"""The implicit reward of a preference-trained policy."""

from __future__ import annotations

import pytest
import torch

from rewardkit.policies.table import TablePolicy
from rewardkit.rewards.learned.implicit import ImplicitReward
from rewardkit.types import Sample
from rewardkit.worlds.tables import Bandits


def test_at_the_closed_form_it_is_the_gold_reward_up_to_a_constant_a_prompt():
    world = Bandits(2, 5, seed=0)
    optimum = world.regularised(0.3)["log_probs"]
    policy = TablePolicy(world.prompts, world.actions, logits=optimum[:, None])
    reward = ImplicitReward(policy, world.policy(), beta=0.3)
    for x, prompt in enumerate(world.prompts):
        scores = reward(policy.encode([Sample(prompt, a) for a in world.actions])).outcome
        gap = scores - world.gold_table[x]
        torch.testing.assert_close(gap, gap[0].expand(5))


def test_a_policy_equal_to_its_reference_rewards_nothing():
    policy = TablePolicy(["x"], ["a", "b"])
    reward = ImplicitReward(policy, policy.at("start"), beta=1.0)
    assert reward(policy.encode([Sample("x", "a")])).outcome.tolist() == [0.0]


def test_dense_shares_sum_to_the_outcome():
    logits = torch.randn(1, 3, 2)
    policy, base = TablePolicy(["x"], ["a", "b"], 2, logits), TablePolicy(["x"], ["a", "b"], 2)
    rollout = policy.encode([Sample("x", ("a", "b")), Sample("x", ("b", "b"))])
    whole = ImplicitReward(policy, base, beta=0.5)(rollout).outcome
    dense = ImplicitReward(policy, base, beta=0.5, dense=True)(rollout)
    assert dense.outcome is None
    torch.testing.assert_close(dense.dense["token"].sum(1), whole)


def test_it_sees_the_policy_live_and_a_kept_one_frozen():
    policy = TablePolicy(["x"], ["a", "b"])
    live = ImplicitReward(policy, policy.at("start"), beta=1.0)
    frozen = ImplicitReward(policy.keep("then"), policy.at("start"), beta=1.0)
    with torch.no_grad():
        policy.logits[..., 0] += 1.0
    rollout = policy.encode([Sample("x", "a")])
    assert float(live(rollout).outcome) > 0
    assert float(frozen(rollout).outcome) == 0.0


def test_beta_must_be_positive():
    policy = TablePolicy(["x"], ["a"])
    with pytest.raises(ValueError, match="beta above 0"):
        ImplicitReward(policy, policy, beta=0.0)
