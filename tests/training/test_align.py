"""Aligning a policy on fixed data."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rewardkit.data import split
from rewardkit.policies.language import LanguagePolicy, train_tokenizer
from rewardkit.training.align import Alignment, align, documents, imitated, whole_dialogue
from rewardkit.types import Judgement, Sample

SIZE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def judged(n: int = 40) -> list[Judgement]:
    return [Judgement((Sample(f"{i}: ", "yes please"), Sample(f"{i}: ", "go away")), rank=(0, 1)) for i in range(n)]


def policy(length: int = 64) -> LanguagePolicy:
    tokenizer = train_tokenizer(["yes please go away 0123456789: "] * 5, vocab_size=300)
    return LanguagePolicy.scratch(tokenizer, SIZE, length=length, seed=0, truncation="left")


def test_what_is_imitated_is_the_better_side() -> None:
    assert [s.output for s in imitated(judged(2))] == ["yes please"] * 2
    assert documents([*judged(1), Sample("a", "b")]) == ["0: yes please", "ab"]


def test_a_long_dialogue_keeps_its_end_and_is_trained_whole() -> None:
    made = policy(length=16)
    long = Sample("0: " + "go away " * 20, "yes please")
    document = whole_dialogue(long, made)
    assert document.prompt == ""
    assert document.output.endswith("yes please")
    rollout = made.encode([document])
    assert len(rollout.inputs["prompt_ids"][0]) + len(rollout.inputs["output_ids"][0]) <= 16
    assert rollout.inputs["output_ids"][0][-1] == made.tokenizer.eos_token_id
    assert bool((rollout.mask == 1).all())


@pytest.mark.parametrize("objective", ["dpo", "ipo", "simpo", "kto"])
def test_preferences_are_learned_and_judged_on_held_out_pairs(objective: str, tmp_path: Path) -> None:
    options = Alignment(objective, epochs=2, lr=1e-2, batch=8)
    made = policy()
    found = align(judged(), made, tmp_path, options)
    assert found["accuracy"] > 0.9
    assert found["n"] == found["held_out"] == len(split(judged(), {"held_out": 0.2})["held_out"])
    assert {"length_only", "length_rule", "train_accuracy", "accuracy_low", "accuracy_high"} <= set(found)
    assert json.loads((tmp_path / "summary.json").read_text())["accuracy"] == found["accuracy"]
    loaded = LanguagePolicy.load(tmp_path)
    for mine, theirs in zip(made.module.parameters(), loaded.module.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_sft_raises_the_likelihood_of_held_out_dialogues(tmp_path: Path) -> None:
    options = Alignment("sft", epochs=0.2, lr=1e-2, batch=8, dialogue=True)
    first = align(judged(), policy(), tmp_path / "a", options)
    later = align(judged(), policy(), tmp_path / "b", replace(options, epochs=4))
    assert later["nll"] < first["nll"] - 0.5


def test_bad_options_say_what_there_is() -> None:
    with pytest.raises(ValueError, match="sft or one of dpo"):
        Alignment("ppo")
    with pytest.raises(ValueError, match="held_out is a fraction"):
        Alignment(held_out=1.0)
