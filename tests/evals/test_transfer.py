"""Cross-reward transfer: scale and zero of a judge do not matter."""

from __future__ import annotations

import pytest
import torch

from rewardkit.evals.transfer import cross_rm_transfer
from rewardkit.rewards.base import RewardBase
from rewardkit.types import Rollout, Sample, Scores


class Count(RewardBase):
    def __init__(self, letter, scale=1.0, zero=0.0):
        self.name, self.scale, self.zero = letter, scale, zero

    def __call__(self, rollout, ctx=None):
        return Scores(torch.tensor([self.scale * s.output.count(self.name) + self.zero for s in rollout.samples]))


def of(*texts):
    return Rollout([Sample("x", t) for t in texts], torch.ones(len(texts), 1))


START = of("a", "b", "ab", "")


def test_a_gain_that_only_its_own_judge_sees_does_not_transfer():
    found = cross_rm_transfer({"a": Count("a"), "b": Count("b")}, {"a": of("aaa", "aaa")}, START)
    assert found.own["a"] > 0
    assert found.others["a"] < 0
    assert found.gap["a"] == found.own["a"] - found.others["a"]


def test_scale_and_zero_of_a_judge_change_nothing():
    plain = cross_rm_transfer({"a": Count("a"), "b": Count("b")}, {"a": of("aab")}, START)
    other = cross_rm_transfer({"a": Count("a"), "b": Count("b", 10.0, -3.0)}, {"a": of("aab")}, START)
    assert plain.gain["a"]["b"] == pytest.approx(other.gain["a"]["b"])


def test_a_judge_that_scores_all_the_same_is_refused():
    with pytest.raises(ValueError, match="scores every output"):
        cross_rm_transfer({"a": Count("a"), "z": Count("z")}, {"a": of("a")}, START)
