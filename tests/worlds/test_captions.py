"""World captions: gold by hand, demonstrations of lower quality, and a policy that learns to look."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rewardkit.types import Rollout, Sample
from rewardkit.worlds.captions import Captions, imitate, right, spoken
from rewardkit.worlds.shapes.scene import Scene


def test_gold_counts_the_words_that_are_right() -> None:
    truth = Scene.parse("one small red disc")
    said = ["one small red disc", "one large red disc", "two large blue squares", "a disc", "one small red disc on"]
    assert [right(s, truth) for s in said] == [1.0, 0.75, 0.0, 0.0, 0.0]


def test_demonstrations_are_wrong_about_a_quarter_of_their_words() -> None:
    world = Captions()
    drawn = world.demonstrations(600, seed=0)
    gold = world.gold(Rollout(drawn, torch.ones(600, 1))).outcome
    assert gold is not None
    assert float(gold.mean()) == pytest.approx(0.75, abs=0.04)
    again = world.demonstrations(3, seed=0)
    assert [s.output for s in again] == [s.output for s in drawn[:3]]


def test_annotators_prefer_what_is_right() -> None:
    world = Captions()
    (asked,) = world.prompts(1, seed=0)
    best = Sample(asked.prompt, asked.hidden["scene"].caption.split(" on ")[0].split(" at ")[0], hidden=asked.hidden)
    worst = Sample(asked.prompt, [{"role": "assistant", "content": "nothing"}], hidden=asked.hidden)
    assert spoken(worst) == "nothing"
    judged = world.compare([best] * 100, [worst] * 100, seed=0)
    assert sum(j.rank == (0, 1) for j in judged) > 95


def test_what_is_told_for_learning_to_see_is_right() -> None:
    told = Captions().demonstrations(50, seed=3, garble=0.0)
    assert {right(spoken(s), s.hidden["scene"]) for s in told} == {1.0}
    again = Captions().demonstrations(50, seed=3)
    assert [s.hidden["scene"] for s in again] == [s.hidden["scene"] for s in told]


def test_the_base_policy_is_built_once(cache: Path) -> None:
    world = Captions()
    policy = world.base_policy(pictures=16, steps=1)
    found = world.measure(policy, n=8)
    assert found["kl"] == pytest.approx(0.0, abs=1e-4)
    assert world.base_policy(pictures=16, steps=1).version == policy.version
    assert len(list((cache / "captions").glob("*/model.safetensors"))) == 1


def test_a_policy_learns_to_speak_and_to_look() -> None:
    def likelihood(samples: list[Sample]) -> float:
        return float(policy.evaluate(policy.encode(samples))["logps"].detach().sum())

    world = Captions()
    told = world.demonstrations(768, seed=1, garble=0.0)
    policy = imitate(world.policy(), told, lr=2e-3, epochs=4.6, batch=16, seed=0)
    policy.keep("start")
    found = world.measure(policy, n=48)
    assert found["gold"] > 0.2, "captions, of a quarter or more of the words"
    assert 0 < found["distinct"] <= 1
    told = world.demonstrations(64, seed=2, garble=0.0)
    turned = [Sample(a.prompt, b.output) for a, b in zip(told, told[1:] + told[:1], strict=True)]
    assert likelihood(told) - likelihood(turned) > 0.25 * len(told), "nats: what is said depends on the picture"
