"""Stages run one after the other, each built when the one before has ended."""

from __future__ import annotations

import pytest

from rewardkit.loops.stages import stages
from rewardkit.registry import Registry


def test_a_stage_is_built_only_when_the_one_before_has_ended():
    made = []

    def first():
        made.append("first")
        yield 1
        made.append("first ended")

    def second():
        made.append("second")
        return [2]

    found = stages(first=first, second=second)
    assert next(found).item == 1
    assert made == ["first"]
    assert [(s.name, s.item) for s in found] == [("second", 2)]
    assert made == ["first", "first ended", "second"]


def test_no_stage_at_all_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        list(stages())


def test_the_three_stages_of_rlhf_are_an_alias():
    assert Registry.load("rewardkit.loops.stages")["loops:rlhf_three_stage"] is stages
