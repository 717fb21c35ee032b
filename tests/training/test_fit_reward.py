"""Fitting a reward model."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from rewardkit.data import split
from rewardkit.policies.language.tokenizer import train_tokenizer
from rewardkit.rewards.learned.scalar import ScalarReward
from rewardkit.training import fit_reward as module
from rewardkit.training.fit_reward import RewardFit, fit_reward
from rewardkit.training.tracking import read_metrics
from rewardkit.types import Judgement, Sample

QUICK = RewardFit(lr=1e-2, epochs=1, batch=8)


def judged(n: int = 80) -> list[Judgement]:
    """The polite reply is better; every prompt has two comparisons."""
    return [
        Judgement((Sample(f"{i // 2}: ", "yes please" + "!" * (i % 3)), Sample(f"{i // 2}: ", "go away")), rank=(0, 1))
        for i in range(n)
    ]


def model(seed: int = 0) -> ScalarReward:
    tokenizer = train_tokenizer(["yes please go away 0123456789: !"] * 5, vocab_size=300)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        num_labels=1, max_position_embeddings=64,
    )  # fmt: skip
    torch.manual_seed(seed)
    return ScalarReward(BertForSequenceClassification(config), tokenizer)


class KilledError(Exception):
    """Stands for a kill."""


def test_it_learns_reports_held_out_and_leaves_a_whole_folder(tmp_path: Path) -> None:
    found = fit_reward(judged(), model(), tmp_path, QUICK)
    assert found.report.accuracy.value > 0.9
    assert found.train + found.held_out == 80
    assert found.report.accuracy.n == found.held_out
    assert found.report.length_rule == "longer"  # chosen on the training pairs
    summary = json.loads((tmp_path / "fit.json").read_text())
    names = {"accuracy", "accuracy_low", "accuracy_high", "ece", "length_bias", "length_only", "length_rule", "n"}
    names |= {"similar_length_accuracy", "ties", "unscored", "train", "held_out", "seconds", "truncated", "options"}
    assert names <= set(summary)
    AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert not (tmp_path / "checkpoints").exists()
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert rows[-1]["held_out/accuracy"] == summary["accuracy"]
    assert list((tmp_path / "tensorboard").iterdir())


def test_no_held_out_prompt_is_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[Any] = set()
    real = module.comparison_rows

    def spy(units: list[Judgement]) -> Any:
        seen.update(j.items[0].prompt for j in units)
        return real(units)

    monkeypatch.setattr(module, "comparison_rows", spy)
    fit_reward(judged(), model(), tmp_path, QUICK)
    parts = split(judged(), {"held_out": 0.2, "train": 0.8}, 0)
    assert seen == {j.items[0].prompt for j in parts["train"]}
    assert not seen & {j.items[0].prompt for j in parts["held_out"]}


def test_a_killed_run_resumes_to_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R65: resume at step k equals the uninterrupted run."""
    options = RewardFit(lr=1e-2, epochs=2, batch=8, checkpoint_every=3)
    whole = model()
    fit_reward(judged(), whole, tmp_path / "whole", options)

    def killed(steps: Any, **_: Any) -> Any:
        for step in steps:
            if step.step == 7:
                raise KilledError
            yield step

    with monkeypatch.context() as patch:
        patch.setattr(module, "progress", killed)
        with pytest.raises(KilledError):
            fit_reward(judged(), model(), tmp_path / "cut", options)
    assert not (tmp_path / "cut" / "config.json").exists()
    again = model()
    fit_reward(judged(), again, tmp_path / "cut", options, resume=True)
    for mine, theirs in zip(whole.module.parameters(), again.module.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
    loss = [
        [(r["step"], r["loss"]) for r in read_metrics(tmp_path / name / "metrics.jsonl") if "loss" in r]
        for name in ("whole", "cut")
    ]
    assert loss[0] == loss[1]


def test_a_folder_with_another_run_is_left_alone(tmp_path: Path) -> None:
    fit_reward(judged(), model(), tmp_path, QUICK)
    before = (tmp_path / "fit.json").read_bytes()
    with pytest.raises(ValueError, match="--resume"):
        fit_reward(judged(), model(), tmp_path, QUICK)
    with pytest.raises(ValueError, match=r"lr was 0.01 and is 0.1"):
        fit_reward(judged(), model(), tmp_path, RewardFit(lr=0.1, epochs=1, batch=8), resume=True)
    assert (tmp_path / "fit.json").read_bytes() == before


def test_early_stopping_looks_at_a_validation_part_of_the_training_side(tmp_path: Path) -> None:
    options = RewardFit(lr=0.0, epochs=20, batch=8, patience=2, evaluate_every=2)
    found = fit_reward(judged(), model(), tmp_path, options)
    assert found.stopped
    assert found.steps == 6
    parts = split(judged(), {"held_out": 0.2, "validation": 0.1, "train": 0.7}, 0)
    assert (found.train, found.held_out) == (len(parts["train"]), len(parts["held_out"]))


def test_weight_0_is_as_if_the_comparison_were_not_there(tmp_path: Path) -> None:
    judgements = judged()
    some = [j for i, j in enumerate(judgements) if i % 3]
    weighted = [j if i % 3 else replace(j, weight=0.0) for i, j in enumerate(judgements)]
    one, two = model(), model()
    found = [fit_reward(some, one, tmp_path / "a", QUICK), fit_reward(weighted, two, tmp_path / "b", QUICK)]
    assert found[0].report == found[1].report
    for mine, theirs in zip(one.module.parameters(), two.module.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_comparison_counts_by_its_weight(tmp_path: Path) -> None:
    """The same pairs judged both ways: the way that weighs more is learned."""
    both = [k for j in judged() for k in (j, replace(j, rank=(1, 0), weight=0.01))]
    reward = model()
    fit_reward(both, reward, tmp_path, QUICK)
    scores = reward.score([Sample("7: ", "yes please"), Sample("7: ", "go away")]).outcome
    assert scores is not None
    assert float(scores[0] - scores[1]) > 1.0


def test_dropout_depends_on_the_seed_and_leaves_the_callers_generator_alone(tmp_path: Path) -> None:
    options, made = replace(QUICK, dropout=True), [model(), model(), model()]
    for i, seed in enumerate((0, 0, 1)):
        torch.manual_seed(100 + i)
        before = torch.get_rng_state()
        fit_reward(judged(), made[i], tmp_path / str(i), replace(options, seed=seed))
        assert torch.equal(torch.get_rng_state(), before)
    first, same, other = ([p.detach() for p in m.module.parameters()] for m in made)
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("options", [QUICK, RewardFit(lr=0.0, epochs=20, batch=8, patience=2, evaluate_every=2)])
def test_a_run_killed_before_it_is_published_resumes_to_the_same_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: RewardFit
) -> None:
    whole = fit_reward(judged(), model(), tmp_path / "whole", options)

    def killed(*_: Any, **__: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(module, "publish", killed)
        with pytest.raises(KilledError):
            fit_reward(judged(), model(), tmp_path / "cut", options)
    again = fit_reward(judged(), model(), tmp_path / "cut", options, resume=True)
    assert replace(again, seconds=0.0) == replace(whole, seconds=0.0)
    assert (tmp_path / "cut/metrics.jsonl").read_text() == (tmp_path / "whole/metrics.jsonl").read_text()


def test_other_comparisons_or_another_backbone_are_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(module, "publish", killed)
        with pytest.raises(KilledError):
            fit_reward(judged(), model(), tmp_path, QUICK, about={"model": "a"})
    flipped = [replace(j, rank=(1, 0)) for j in judged()]
    with pytest.raises(ValueError, match="data_digest was"):
        fit_reward(flipped, model(), tmp_path, QUICK, about={"model": "a"}, resume=True)
    with pytest.raises(ValueError, match="model was 'a' and is 'b'"):
        fit_reward(judged(), model(), tmp_path, QUICK, about={"model": "b"}, resume=True)


def test_a_run_that_fails_before_its_first_checkpoint_gives_the_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ImportError, match=r"rewardkit\[wandb\]"):
        fit_reward(judged(), model(), tmp_path, QUICK, also=("wandb",))
    with monkeypatch.context() as patch:
        patch.setattr(module, "comparison_rows", lambda units: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fit_reward(judged(), model(), tmp_path, QUICK)
    assert fit_reward(judged(), model(), tmp_path, QUICK).report.accuracy.value > 0.9


def test_too_few_comparisons_say_which_part_is_empty(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is in the part"):
        fit_reward(judged(2), model(), tmp_path)
    with pytest.raises(ValueError, match="held_out is a fraction"):
        RewardFit(held_out=0.0)
