"""World critics: what decides, what the mark is worth, and a base judge that follows it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rewardkit.types import Rollout
from rewardkit.worlds.critics import ATTRIBUTES, Critics


def decided(prompt):
    """Attribute and label, worked out from the prompt again."""
    shown = {prompt[i]: (int(prompt[i + 1]), int(prompt[i + 2])) for i in range(0, len(prompt) - 1, 3)}
    first = min(shown)
    return first, "1" if shown[first][0] > shown[first][1] else "2"


def test_the_first_attribute_of_the_alphabet_decides():
    for pair in Critics().pairs(200, seed=0):
        assert decided(pair.prompt) == (pair.hidden["why"], pair.hidden["answer"])
        assert pair.hidden["critique"] == (pair.hidden["why"],)


@pytest.mark.parametrize(("elsewhere", "rate"), [(False, 0.9), (True, 0.5)])
def test_the_mark_helps_in_training_and_nowhere_else(elsewhere, rate):
    pairs = Critics().pairs(600, seed=1, elsewhere=elsewhere)
    points = [(p.prompt[-1] == "<") == (p.hidden["answer"] == "1") for p in pairs]
    assert np.mean(points) == pytest.approx(rate, abs=4 * 0.5 / 600**0.5)


def test_as_many_pairs_have_a_critique_as_asked():
    pairs = Critics(annotated=0.2).pairs(600, seed=2)
    assert np.mean(["critique" in p.hidden for p in pairs]) == pytest.approx(0.2, abs=4 * 0.4 / 600**0.5)


def test_gold_wants_the_label_and_the_reason_and_nothing_else():
    world = Critics()
    [pair] = world.pairs(1, seed=3)
    why, label = pair.hidden["why"], pair.hidden["answer"]
    other = next(a for a in ATTRIBUTES if a != why)
    said = [why + label, why + other + label, other + label, why + ("2" if label == "1" else "1")]
    rollout = Rollout([replace(pair, output=o) for o in said], torch.ones(4, 1))
    assert world.gold(rollout).outcome.tolist() == [1.0, 0.0, 0.0, 0.0]


def test_what_is_measured(cache):
    found = Critics().measure(Critics().base_policy(steps=1), pairs=4, n=1)
    assert set(found) == {"accuracy", "elsewhere", "core_f1", "inconsistent", "gold", "kl"}
