"""A policy against a reward, into a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rewardkit.loops import align as module
from rewardkit.loops.align import Reinforcement, align_online
from rewardkit.policies.language import LanguagePolicy, train_tokenizer
from rewardkit.rewards.function import function_reward
from rewardkit.training import read_metrics
from rewardkit.training.items import prompt_digests, seen_by
from rewardkit.types import Sample

SIZE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
PROMPTS = [Sample(f"{i}: ") for i in range(20)]
OPTIONS = Reinforcement(steps=4, batch=4, n=2, lr=1e-2, max_new_tokens=4, evaluate_every=2, checkpoint_every=3)


def policy() -> LanguagePolicy:
    tokenizer = train_tokenizer(["yes please go away 0123456789: "] * 5, vocab_size=300)
    return LanguagePolicy.scratch(tokenizer, SIZE, length=32, seed=0)


@function_reward
def short(completions: list[str], **_: Any) -> list[float]:
    return [-float(len(c)) for c in completions]


class KilledError(Exception):
    """Stands for a kill."""


def test_evaluations_follow_their_schedule_and_show_the_latest_turn(tmp_path: Path) -> None:
    found = align_online(PROMPTS, policy(), short, tmp_path, OPTIONS)
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [r["step"] for r in rows if "held_out/proxy" in r] == [0, 2, 4]
    assert found["held_out_proxy_before"] == rows[0]["held_out/proxy"]
    assert found["held_out_proxy_after"] == pytest.approx(rows[-1]["held_out/proxy"])
    assert found["published"] == 4
    shown = [json.loads(line) for line in (tmp_path / "rollouts.jsonl").read_text().splitlines()]
    assert [r["step"] for r in shown] == [4] * 8
    assert "Turn 4" in (tmp_path / "rollouts.html").read_text()
    seen = seen_by(tmp_path)
    assert len(seen) == found["train"]
    assert seen < prompt_digests(PROMPTS)


@pytest.mark.parametrize("when", ["publish", "_show"])
def test_a_killed_run_resumes_to_the_same_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """Killed before it is published, and after its second turn, which has no checkpoint: the run begins anew."""
    whole = align_online(PROMPTS, policy(), short, tmp_path / "whole", OPTIONS)

    def killed(*_: Any, **__: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(module, when, killed)
        with pytest.raises(KilledError):
            align_online(PROMPTS, policy(), short, tmp_path / "cut", OPTIONS)
    again = align_online(PROMPTS, policy(), short, tmp_path / "cut", OPTIONS, resume=True)
    assert {**again, "seconds": 0} == {**whole, "seconds": 0}
    assert (tmp_path / "cut/metrics.jsonl").read_text() == (tmp_path / "whole/metrics.jsonl").read_text()


def test_bad_options_say_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"one of .*grpo"):
        Reinforcement("dpo")
    with pytest.raises(ValueError, match="evaluate_every"):
        Reinforcement(evaluate_every=0)
    with pytest.raises(ValueError, match="held_out is a fraction"):
        Reinforcement(held_out=0.0)
    with pytest.raises(ValueError, match="held-out part"):
        align_online(PROMPTS[:1], policy(), short, tmp_path, OPTIONS)
