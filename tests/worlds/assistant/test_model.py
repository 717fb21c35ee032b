"""The base policy: built from the shared parts, cached, repeatable."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rewardkit.policies.language import LanguagePolicy, Sampling
from rewardkit.worlds.assistant import AssistantWorld, wellformed
from rewardkit.worlds.assistant.model import DEFAULTS, batches

TINY = {
    "steps": 3,
    "batch": 4,
    "demonstrations": 300,
    "length": 400,
    "vocabulary": 600,
    "shape": {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
}


def test_a_build_is_cached_by_its_settings_and_loads_without_us(cache: Path) -> None:
    from transformers import AutoModelForCausalLM

    world = AssistantWorld(seed=0)
    folder = world.build(**TINY)
    written = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert folder.is_relative_to(cache)
    assert world.build(**TINY) == folder
    assert {p.name: p.stat().st_mtime_ns for p in folder.iterdir()} == written
    assert world.build(**TINY | {"steps": 2}) != folder
    assert AssistantWorld(seed=1).build(**TINY) != folder
    assert AutoModelForCausalLM.from_pretrained(folder).config.hidden_size == 16


def test_a_build_is_a_function_of_its_seed(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = AssistantWorld(seed=0).base_policy(**TINY)
    torch.manual_seed(99)
    monkeypatch.setenv("REWARDKIT_CACHE", str(tmp_path / "other"))
    assert AssistantWorld(seed=0).base_policy(**TINY).version == first.version
    assert AssistantWorld(seed=1).base_policy(**TINY).version != first.version


def test_the_base_policy_answers_prompts_of_the_world_and_gold_reads_what_it_says(cache: Path) -> None:
    world = AssistantWorld(seed=0)
    policy = world.base_policy(**TINY)
    rollout = policy.sample(world.prompts("test", 3), n=2, sampling=Sampling(max_new_tokens=12), seed=0)
    scores = world.gold(rollout)
    assert bool(scores.ok.all())
    assert not any(wellformed(s.output) for s in rollout.samples)
    verdicts = world.annotators().compare(rollout.samples[::2], rollout.samples[1::2])
    assert len(verdicts) == 3


def test_training_lowers_the_loss(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rewardkit.objectives.imitation import sft
    from rewardkit.training.learner import Learner
    from rewardkit.training.term import Term

    world = AssistantWorld(seed=0)
    held_out = world.demonstrations(40, seed=7)
    losses = []
    for steps in (1, 40):
        policy = world.base_policy(**TINY | {"steps": steps, "warmup": 1})
        losses.append(Learner(policy).step(Term(policy.encode(held_out), sft))["loss"])
    assert losses[1] < losses[0] - 0.3
    assert "base policy" in capsys.readouterr().err


def test_an_unknown_setting_is_named(cache: Path) -> None:
    with pytest.raises(ValueError, match="stesp"):
        AssistantWorld().build(stesp=3)


def test_the_real_policy_has_at_least_a_million_weights() -> None:
    policy = LanguagePolicy.scratch(_tokenizer(), DEFAULTS["shape"], keep_start=False)
    assert 1_000_000 <= policy.parameters < 1_500_000


def _tokenizer() -> object:
    from rewardkit.policies.language import train_tokenizer

    demos = AssistantWorld().demonstrations(DEFAULTS["demonstrations"], seed=0)
    tokenizer = train_tokenizer((d.prompt + d.output for d in demos), DEFAULTS["vocabulary"])
    lengths = [len(tokenizer(d.prompt + d.output).input_ids) for d in demos[:500]]
    assert max(lengths) + 1 < DEFAULTS["length"]
    assert 40 < sum(lengths) / len(lengths) < 70
    return tokenizer


def test_batches_take_every_row_once_before_any_comes_again() -> None:
    world = AssistantWorld(seed=0)
    tokenizer = _tokenizer()
    policy = LanguagePolicy.scratch(tokenizer, TINY["shape"], keep_start=False)
    data = policy.encode(world.demonstrations(128, seed=0))
    parts = list(batches(data, 4, 64, seed=0))
    assert [len(p) for p in parts] == [4] * 64
    counts = {id(s): 0 for s in data.samples}
    for p in parts:
        for s in p.samples:
            counts[id(s)] += 1
    assert set(counts.values()) == {2}
    spread = [max(map(len, p.inputs["output_ids"])) - min(map(len, p.inputs["output_ids"])) for p in parts]
    assert sum(spread) / len(spread) < 15
