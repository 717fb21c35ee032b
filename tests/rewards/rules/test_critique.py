"""F1 of what a critique names."""

from __future__ import annotations

import pytest
import torch

from rewardkit.rewards.rules.critique import CritiqueSimilarity, set_f1
from rewardkit.types import MISSING, OK, Rollout, Sample
from rewardkit.worlds.critics import named


def test_naming_everything_is_worth_less_than_naming_what_decides():
    assert set_f1("abcdef", {"a"}) == pytest.approx(2 / 7)
    assert set_f1("a", {"a"}) == 1.0
    assert set_f1("b", {"a"}) == 0.0


def test_no_critique_is_the_judges_failure_and_no_annotation_is_missing():
    rows = [
        Sample("x", "a1", hidden={"critique": ("a",)}),
        Sample("x", "a", hidden={"critique": ("a",)}),
        Sample("x", "a1"),
    ]
    found = CritiqueSimilarity(named)(Rollout(rows, torch.ones(3, 1)))
    assert found.outcome.tolist() == [1.0, 0.0, 0.0]
    assert found.status.tolist() == [OK, OK, MISSING]
