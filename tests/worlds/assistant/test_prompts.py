"""Prompts, splits and the corpus."""

from __future__ import annotations

import pytest

from rewardkit.worlds.assistant import AssistantWorld, wellformed
from rewardkit.worlds.assistant.gold import score
from rewardkit.worlds.assistant.knowledge import knowledge
from rewardkit.worlds.assistant.prompts import SIZES, prompts


def test_splits_share_no_prompt_and_have_the_stated_sizes() -> None:
    texts = {split: [p.prompt for p in prompts(split)] for split in SIZES}
    assert {s: len(t) for s, t in texts.items()} == {"train": 2000, "validation": 300, "test": 500}
    assert len({t for s in texts.values() for t in s}) == 2800


def test_another_seed_takes_other_prompts_of_the_same_split() -> None:
    first, second = ({p.prompt for p in prompts("train", seed=s)} for s in (0, 1))
    assert first != second
    assert not second & {p.prompt for p in prompts("test", seed=0)}


@pytest.mark.parametrize("split", list(SIZES))
def test_every_split_covers_topics_and_keeps_its_share_of_harm(split: str) -> None:
    some = prompts(split, 210)
    assert sum(p.hidden["harmful"] for p in some) == 30
    assert {p.hidden["of"] for p in prompts(split)} == set(knowledge().topics) | set(knowledge().harms)


def test_prompts_have_no_output_and_refuse_more_than_there_are() -> None:
    assert all(p.output is None for p in prompts("test"))
    with pytest.raises(ValueError, match="500 prompts, not 501"):
        prompts("test", 501)
    with pytest.raises(ValueError, match="splits"):
        prompts("dev")  # type: ignore[arg-type]


def test_demonstrations_are_a_function_of_their_seed_and_use_training_prompts_alone() -> None:
    world = AssistantWorld(seed=0)
    one, same, other = (world.demonstrations(2500, seed=s) for s in (3, 3, 4))
    assert one == same
    assert one != other
    assert {d.prompt for d in one} == {p.prompt for p in world.prompts("train")}


def test_demonstrations_are_well_formed_mediocre_and_diverse() -> None:
    some = AssistantWorld().demonstrations(2000, seed=0)
    values = [score(s) for s in some]
    mean = sum(values) / len(values)
    spread = (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5
    assert all(wellformed(s.output) for s in some)
    assert -0.1 < mean < 0.2
    assert spread > 0.4
    assert max(len(s.output.split()) for s in some) <= 56


def test_wellformed_tells_whole_sentences_from_garble() -> None:
    good = "First, oil the chain every two weeks, because a dry chain wears out fast. Sorry, I cannot do that."
    assert wellformed(good)
    for bad in ("", " " + good, good[:-1], good.lower(), good.replace("chain", "chian"), good + "  Good luck!", "Oh!"):
        assert not wellformed(bad), bad
