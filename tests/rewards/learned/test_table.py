"""A table of scores: learned from comparisons it is gold, up to a constant for each prompt."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from rewardkit.data.rows import attach, comparison_rows
from rewardkit.needs import Column
from rewardkit.objectives.path import path_gradient
from rewardkit.objectives.reward import bradley_terry
from rewardkit.policies.path import PathValue
from rewardkit.policies.table import TablePolicy
from rewardkit.rewards.learned.table import TableScores
from rewardkit.testing.table import exact_gradient
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Sample
from rewardkit.worlds.tables import Bandits


def test_from_exact_probabilities_the_table_is_gold_up_to_a_constant() -> None:
    world = Bandits(1, 3, seed=0)
    reward, rows = TableScores(world.prompts, world.actions), comparison_rows(world.comparisons())
    data = attach(reward.encode(rows.samples), rows)
    data = data.with_tensors(doubt=1 - data["p"].double())
    learner = Learner(reward, lr=0.2, schedule="cosine", total_steps=300)
    for _ in range(300):
        learner.step(Term(data, partial(bradley_terry, smoothing=Column("doubt", of="better"))))
    gap = reward.table.detach() - world.gold_table
    torch.testing.assert_close(gap - gap.mean(-1, keepdim=True), torch.zeros_like(gap), atol=1e-3, rtol=0)


def test_the_path_gradient_of_a_table_is_the_exact_policy_gradient() -> None:
    policy = TablePolicy(["x", "y"], ["a", "b", "c"], logits=torch.randn(2, 1, 3, dtype=torch.float64))
    reward = TableScores(policy.prompts, policy.vocabulary)
    with torch.no_grad():
        reward.table.copy_(torch.randn(2, 3, dtype=torch.float64))
    data = policy.encode([Sample("x", "a"), Sample("y", "a")])
    got = Learner(policy).grads(Term(data, path_gradient, want=(PathValue(reward.expected),)))["logits"]
    scores = {("x", a): float(reward.table.detach()[0, i]) for i, a in enumerate("abc")}
    scores |= {("y", a): float(reward.table.detach()[1, i]) for i, a in enumerate("abc")}
    want = sum(exact_gradient(policy, p, lambda s: scores[s.prompt, s.output]) for p in "xy") / 2
    torch.testing.assert_close(-got, want)


def test_what_the_table_does_not_know_is_named() -> None:
    reward = TableScores(["x"], ["a"])
    with pytest.raises(KeyError, match="no action 'z'"):
        reward.encode([Sample("x", "z")])
    with pytest.raises(KeyError, match="no prompt 'q'"):
        reward.encode([Sample("q", "a")])
    with pytest.raises(KeyError, match="scores"):
        reward.evaluate(reward.encode([Sample("x", "a")]), ("logps",))


def test_a_long_table_has_no_path_value() -> None:
    policy = TablePolicy(["x"], ["a", "b"], 2)
    with pytest.raises(ValueError, match="horizon of 1"):
        policy.evaluate(policy.encode([Sample("x", ("a", "b"))]), (PathValue(lambda p, s: p[:, 0]),))
