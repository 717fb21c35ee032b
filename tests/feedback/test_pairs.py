"""Comparisons built from scored groups."""

import pytest
import torch

from rewardkit.feedback.pairs import best_worst_pairs
from rewardkit.objectives.base import pairs_of
from rewardkit.types import ERROR, OK, Rollout, Sample, Scores


def rollout(groups):
    return Rollout([Sample(g, i) for i, g in enumerate(groups)], torch.ones(len(groups), 2), torch.tensor(groups))


def outputs(r):
    return [s.output for s in r.samples]


def test_best_and_worst_of_interleaved_groups():
    pairs = best_worst_pairs(rollout([0, 1, 0, 1, 0]), Scores(torch.tensor([1.0, 5.0, 3.0, 4.0, 2.0])))
    assert outputs(pairs) == [2, 0, 1, 3]
    assert pairs_of(pairs.group, pairs["rank"]).tolist() == [[0, 1], [2, 3]]


def test_rows_whose_grader_failed_are_never_winners_or_losers():
    scores = Scores(torch.tensor([9.0, 1.0, 2.0]), status=torch.tensor([ERROR, OK, OK]))
    assert outputs(best_worst_pairs(rollout([0, 0, 0]), scores)) == [2, 1]


def test_groups_without_a_difference_are_left_out():
    pairs = best_worst_pairs(rollout([0, 0, 1, 1]), Scores(torch.tensor([1.0, 1.0, 0.0, 0.5])))
    assert outputs(pairs) == [3, 2]
    pairs = best_worst_pairs(rollout([0, 0, 1, 1]), Scores(torch.tensor([0.0, 3.0, 0.0, 0.5])), min_gap=1.0)
    assert outputs(pairs) == [1, 0]


def test_nothing_to_compare_is_said():
    with pytest.raises(ValueError, match="nothing to compare"):
        best_worst_pairs(rollout([0, 0]), Scores(torch.ones(2)))
