"""The loops on a small language policy: mixed precision, and weights that do not move."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from rewardkit.credit.group import group_relative
from rewardkit.loops import NoSignal, PromptSet, online, parts_of, rounds
from rewardkit.objectives.methods import METHODS
from rewardkit.objectives.policy import clipped
from rewardkit.objectives.preference import dpo
from rewardkit.policies.language import Critic, LanguagePolicy, Sampling, train_tokenizer
from rewardkit.training import Learner, attach_reference
from rewardkit.types import Rollout, Sample

PROMPTS = ["Say yes.", "Say no.", "Maybe."]


def policy(**options: Any) -> LanguagePolicy:
    tokenizer = train_tokenizer(["Say yes. Say no. Yes! No! Maybe."], 280)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LanguagePolicy.scratch(tokenizer, size, length=64, seed=0, **options)


def letters(completions: list[str], **_: Any) -> list[float]:
    return [float(sum(map(ord, c)) % 7) for c in completions]


def run(learner: Learner, **options: Any):
    settings = {"reference": "start", "n": 4, "batch": 3, "steps": 3, "sampling": Sampling(max_new_tokens=6), **options}
    parts = {"credit": group_relative, "objective": clipped} | settings
    return online(learner, PromptSet(PROMPTS), letters, **parts)


def pairs(policy: Any, number: int) -> Rollout:
    said = [("Say yes.", " Yes!"), ("Say yes.", " No!"), ("Say no.", " No! Maybe."), ("Say no.", " Yes! Yes!")]
    data = policy.encode([Sample(p, o) for p, o in said])
    data.group = torch.tensor([0, 0, 1, 1])
    return data.with_tensors(rank=torch.tensor([0, 1, 0, 1]))


@pytest.mark.parametrize("reference", ["start", "last", "policy"])
def test_first_ratio_is_one_and_divergence_zero_in_mixed_precision(reference: str) -> None:
    """R38: old, reference and live log-probs are computed in one precision, that of the learner."""
    against: Any = policy() if reference == "policy" else reference
    learner = Learner(policy(), lr=0.0, mixed_precision="bf16")
    for step in run(learner, reference=against, kl=0.1, steps=2):
        assert step.metrics["clipped/ratio"] == pytest.approx(1.0, abs=1e-6)
        assert step.metrics["kl/k3_response"] == pytest.approx(0.0, abs=1e-9)
        assert step.metrics["kl/loss"] == pytest.approx(0.0, abs=1e-9)


def test_critic_is_read_in_its_own_precision() -> None:
    critic = Learner(Critic.from_policy(policy(), seed=0), lr=0.0, mixed_precision="bf16")
    step = next(run(Learner(policy(), lr=0.0), **parts_of(METHODS["ppo"]) | {"n": 4, "critic": critic}))
    with torch.no_grad():
        plain = critic.model.evaluate(step.rollout)["values"]
        with torch.autocast("cpu", torch.bfloat16):
            own = critic.model.evaluate(step.rollout)["values"]
    assert torch.equal(step.rollout["old_values"], own)
    assert not torch.equal(plain, own)


def test_dpo_at_the_reference_is_log_two_in_mixed_precision() -> None:
    """R47: log-probs of the reference that were attached in another precision are computed again."""
    learner = Learner(policy(), lr=0.0, mixed_precision="bf16")
    start = learner.model.at("start")

    def attached(live: Any, number: int) -> Rollout:
        return attach_reference(pairs(live, number), start)

    for collect in (pairs, attached):
        found = next(rounds(learner, collect, dpo, reference="start", rounds=1))
        assert found.metrics["dpo/loss"] == pytest.approx(math.log(2), abs=1e-6)
        assert found.metrics["dpo/accuracy"] == 0.5


@pytest.mark.filterwarnings("ignore:.*every output was cut off")
@pytest.mark.parametrize("lora", [None, {"r": 2, "target_modules": ["q_proj"]}])
def test_weights_that_do_not_move_are_named(lora: Any) -> None:
    """R47: sampling and teacher forcing round differently, so the divergence is not 0; the weights are."""
    with pytest.warns(NoSignal, match="still equals the one it started from"):
        still = [s.metrics for s in run(Learner(policy(lora=lora), lr=0.0), steps=5)]
    assert [m["unmoved"] for m in still] == [0, 1, 1, 1, 1]
    assert any(m["kl/k3_response"] != 0.0 for m in still)
    assert not any(s.metrics["unmoved"] for s in run(Learner(policy(lora=lora), lr=1e-6), steps=5))
