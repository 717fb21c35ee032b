"""Similarity to the other wordings of a question, never to one's own."""

from __future__ import annotations

import pytest
import torch

from rewardkit.rewards.rules.similarity import GroupSimilarity
from rewardkit.types import ERROR, Rollout, Sample


def same(a, b):
    return float(a == b)


def rollout(said, group, family):
    samples = [Sample("q", s) for s in said]
    return Rollout(samples, torch.ones(len(said), 1), torch.tensor(group), torch.tensor(family))


TWELVE = rollout("aababbaabbba", [0] * 4 + [1] * 4 + [2] * 4, [0] * 12)


def test_the_formula_by_hand():
    said, group = [s.output for s in TWELVE.samples], TWELVE.group.tolist()
    expected = [sum(said[i] == said[j] for j in range(12) if group[j] != group[i]) / ((3 - 1) * 4) for i in range(12)]
    assert GroupSimilarity(same)(TWELVE).outcome.tolist() == pytest.approx(expected)


def test_ones_own_group_does_not_count():
    # Each wording always gets its own answer: no two wordings agree, however sure each is.
    sure = rollout("aabbcc", [0, 0, 1, 1, 2, 2], [0] * 6)
    assert GroupSimilarity(same)(sure).outcome.tolist() == [0.0] * 6
    assert GroupSimilarity(same, own=True)(sure).outcome.tolist() == [1.0] * 6


def test_families_do_not_meet():
    two = rollout("abab", [0, 1, 2, 3], [0, 0, 1, 1])
    assert GroupSimilarity(same)(two).outcome.tolist() == [0.0] * 4


def test_a_row_without_another_wording_is_an_error_and_not_a_number():
    found = GroupSimilarity(same)(rollout("aab", [0, 0, 1], [0, 0, 1]))
    assert found.status.tolist() == [ERROR] * 3
    assert "family" in found.why[0]


def test_the_approximation_is_right_on_average_and_counts_fewer_calls():
    exact = GroupSimilarity(same)(TWELVE)
    reward = GroupSimilarity(same, paraphrases=1, outputs=1)
    found = [reward(TWELVE, {"step": i}) for i in range(400)]
    assert exact.cost.calls == 12 * 8
    assert {f.cost.calls for f in found} == {12}
    gap = torch.stack([f.outcome for f in found]).mean(0) - exact.outcome
    assert gap.abs().max() < 4 * 0.5 / 400**0.5
    assert torch.equal(reward(TWELVE, {"step": 3}).outcome, found[3].outcome)
