"""Held-out metrics of a policy."""

from __future__ import annotations

import pytest
import torch

from rewardkit.loops.evaluate import divergence_from, mean_score, win_rate
from rewardkit.policies.table import TablePolicy
from rewardkit.rewards.function import function_reward
from rewardkit.types import Sample

PROMPTS = [f"x{i}" for i in range(40)]
REWARD = function_reward(lambda sample: {"a": 0.0, "b": 1.0, "c": None}[sample.output])


def policy(*logits: float) -> TablePolicy:
    return TablePolicy(PROMPTS, ["a", "b", "c"], logits=torch.tensor(logits).expand(40, 1, 3))


def test_mean_score_is_over_scored_rows_with_an_interval() -> None:
    found = mean_score(PROMPTS, REWARD, n=20)(policy(0.0, 1.0, 0.0))
    assert found.value == pytest.approx(torch.e / (1 + torch.e), abs=0.05)
    assert found.ci[0] < found.value < found.ci[1]
    assert 100 < found.invalid < 300


def test_win_rate_counts_ties_half_and_leaves_unscored_rows_out() -> None:
    always_b, always_a, always_c = policy(-50.0, 50.0, -50.0), policy(50.0, -50.0, -50.0), policy(-50.0, -50.0, 50.0)
    assert win_rate(PROMPTS, REWARD, always_a)(always_b).value == 1.0
    assert win_rate(PROMPTS, REWARD, always_b)(always_b).value == 0.5
    answered = always_b.encode([Sample(p, "b") for p in PROMPTS])
    assert win_rate(PROMPTS, REWARD, answered)(always_a).value == 0.0
    half = win_rate(PROMPTS, REWARD, always_a)(policy(-50.0, 0.0, 0.0))
    assert (half.value, half.n + half.invalid) == (1.0, 40)
    assert win_rate(PROMPTS, REWARD, always_a)(always_c).n == 0
    with pytest.raises(ValueError, match="80 for 40"):
        win_rate(PROMPTS, REWARD, always_a.sample(PROMPTS, 2))(always_b)


def test_divergence_agrees_with_the_exact_one_and_keeps_its_direction() -> None:
    """R34."""
    p, q = policy(1.0, 0.0, 0.0), policy(0.0, 0.0, 0.5)
    one, two = p.enumerate("x0")[1].detach(), q.enumerate("x0")[1].detach()
    found = divergence_from(q, PROMPTS, n=200)(p)
    assert found.value == pytest.approx(float((one * (one / two).log()).sum()), abs=0.03)
    assert found.ci[0] < found.ci[1]
