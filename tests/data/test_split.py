"""Splits by prompt."""

from __future__ import annotations

import random

import pytest

from rewardkit.data import split
from rewardkit.data.split import part_of, position
from rewardkit.types import Judgement, Sample

PARTS = {"train": 0.8, "test": 0.2}
ITEMS = [Judgement((Sample(f"p{i % 300}", f"a{i}"), Sample(f"p{i % 300}", "b")), rank=(0, 1)) for i in range(900)]


def test_a_prompt_is_never_on_both_sides_and_nothing_is_lost() -> None:
    parts = split(ITEMS, PARTS, seed=3)
    sides = [{j.items[0].prompt for j in parts[name]} for name in PARTS]
    assert not sides[0] & sides[1]
    assert sum(map(len, parts.values())) == len(ITEMS)
    assert abs(len(sides[1]) / 300 - 0.2) < 0.07


def test_order_and_streaming_do_not_change_the_side() -> None:
    mixed = ITEMS[:]
    random.Random(0).shuffle(mixed)
    one = {j.items[0].output for j in split(ITEMS, PARTS)["test"]}
    two = {j.items[0].output for j in split(iter(mixed), PARTS)["test"]}
    assert one == two


def test_the_seed_changes_the_split_and_the_completion_does_not() -> None:
    assert {j.items[0].prompt for j in split(ITEMS, PARTS, 0)["test"]} != {
        j.items[0].prompt for j in split(ITEMS, PARTS, 1)["test"]
    }
    assert position(Sample("p", "a")) == position(Judgement((Sample("p", "b"),), rating=(1.0,)))


def test_a_rewritten_prompt_stays_with_the_users_own_words() -> None:
    assert position(Sample("please: p", source="p")) == position(Sample("p"))


def test_positions_are_uniform_over_prompts() -> None:
    values = sorted(position(Sample(f"prompt {i}")) for i in range(2000))
    assert max(abs(v - i / 2000) for i, v in enumerate(values)) < 0.04


def test_fractions_may_leave_a_remainder_but_not_exceed_one() -> None:
    parts = split(ITEMS, {"a": 0.1, "b": 0.1})
    assert 0 < sum(map(len, parts.values())) < 450
    with pytest.raises(ValueError, match="sum to at most 1"):
        part_of(ITEMS[0], {"a": 0.8, "b": 0.3})


def test_fractions_that_sum_to_one_leave_nothing() -> None:
    thirds = {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}
    assert sum(map(len, split(ITEMS, thirds).values())) == len(ITEMS)
