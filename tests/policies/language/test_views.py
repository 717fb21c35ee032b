"""Frozen views, LoRA, versions, modes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch

from rewardkit.merging import ema
from rewardkit.policies.language import LanguagePolicy, Sampling
from rewardkit.policies.weights import read, write
from rewardkit.protocols import Policy
from rewardkit.training.reference import attach_reference
from rewardkit.types import Rollout, Sample

Make = Callable[..., LanguagePolicy]
SAMPLES = [Sample("the cat sat", " on the mat"), Sample("how", " are you today?")]
SIX = Sampling(max_new_tokens=6)


def logps(policy: LanguagePolicy, rollout: Rollout) -> torch.Tensor:
    return policy.evaluate(rollout)["logps"].detach().clone()


def without_dropout(policy: LanguagePolicy) -> None:
    """Make training mode repeatable."""
    for m in policy.module.modules():
        if isinstance(m, torch.nn.Dropout):
            m.p = 0.0


def one_step(policy: LanguagePolicy) -> None:
    """Raise the likelihood of SAMPLES once."""
    weights = [p for p in policy.module.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=0.01)
    policy.evaluate(policy.encode(SAMPLES))["logps"].sum().neg().backward()
    optimiser.step()
    optimiser.zero_grad()


@pytest.fixture(params=["full", "lora"])
def policy(request: pytest.FixtureRequest, make: Make, lora: Make) -> LanguagePolicy:
    made = (make if request.param == "full" else lora)()
    made.module.eval()
    return made


def test_it_is_a_policy(policy: LanguagePolicy) -> None:
    assert isinstance(policy, Policy)


def test_the_reference_is_equal_before_a_step_and_different_and_unchanged_after(policy: LanguagePolicy) -> None:
    """R32, R37: KL to the start is 0 at step 0 and not after one; the start itself never moves."""
    rollout = policy.encode(SAMPLES)
    start = logps(policy.at("start"), rollout)
    assert torch.allclose(logps(policy, rollout), start, atol=1e-6)
    version = policy.at("start").version
    one_step(policy)
    assert not torch.allclose(logps(policy, rollout), start, atol=1e-3)
    assert torch.equal(logps(policy.at("start"), rollout), start)
    assert policy.at("start").version == version


def test_frozen_views_carry_no_gradient_and_the_live_one_does(policy: LanguagePolicy) -> None:
    rollout = policy.encode(SAMPLES)
    policy.keep("old")
    assert policy.evaluate(rollout)["logps"].requires_grad
    for view in ("start", "old"):
        assert not policy.at(view).evaluate(rollout)["logps"].requires_grad
    assert not any(p.requires_grad for p in policy.at("old").module.parameters())


def test_keep_freezes_the_present_weights(policy: LanguagePolicy) -> None:
    rollout = policy.encode(SAMPLES)
    one_step(policy)
    kept = logps(policy.keep("old"), rollout)
    version = policy.version
    one_step(policy)
    assert torch.equal(logps(policy.at("old"), rollout), kept)
    assert policy.version != version


def test_frozen_views_ignore_dropout_in_the_live_module(make: Make, lora: Make) -> None:
    """R40."""
    for policy in (make("gpt2", {"resid_pdrop": 0.5}), lora()):
        rollout = policy.encode(SAMPLES)
        policy.module.train()
        reference = policy.at("start")
        assert torch.equal(logps(reference, rollout), logps(reference, rollout))
        assert policy.module.training


def test_views_sample(policy: LanguagePolicy) -> None:
    before = policy.sample(["the cat"], n=2, sampling=SIX, seed=0)
    one_step(policy)
    assert policy.at("start").sample(["the cat"], n=2, sampling=SIX, seed=0).inputs == before.inputs


def test_every_view_moves_with_the_policy(policy: LanguagePolicy) -> None:
    """The device "meta" stands for a GPU: the weights go somewhere else."""
    policy.keep("old")
    assert policy.to("meta") is policy
    for view in ("live", "start", "old", *(["adapter_off"] if hasattr(policy.module, "peft_config") else [])):
        assert {p.device.type for p in policy.at(view).module.parameters()} == {"meta"}
        assert policy.at(view).device.type == "meta"


def test_unknown_and_reserved_views_are_refused(make: Make) -> None:
    policy = make(keep_start=False)
    with pytest.raises(KeyError, match="keep_start"):
        policy.at("start")
    with pytest.raises(KeyError, match="no view 'ema'"):
        policy.at("ema")
    with pytest.raises(ValueError, match="live"):
        policy.keep("live")
    assert policy.at("live") is policy


def test_version_follows_every_bit_of_the_weights_and_nothing_else(policy: LanguagePolicy) -> None:
    first = policy.version
    policy.sample(["x"], sampling=SIX, seed=0)
    assert policy.version == first
    weight = next(p for p in policy.module.parameters() if p.requires_grad)
    flat = weight.data.view(-1)
    flat[3] += 1e-3
    assert policy.version != first
    flat[3] -= 1e-3
    flat[[0, 1]] = flat[[1, 0]] + torch.tensor([1.0, 0.0])
    assert policy.version != first


def test_a_deep_copy_trains_alone_and_shares_frozen_views(policy: LanguagePolicy) -> None:
    rollout = policy.encode(SAMPLES)
    before = logps(policy, rollout)
    twin = copy.deepcopy(policy)
    one_step(twin)
    assert torch.equal(logps(policy, rollout), before)
    assert not torch.equal(logps(twin, rollout), before)
    assert torch.allclose(logps(twin.at("start"), rollout), before, atol=1e-6)


class TestAdapter:
    """LoRA: the model with its adapter off is the reference."""

    def test_a_fresh_adapter_needs_no_copy(self, lora: Make) -> None:
        policy = lora()
        assert policy.at("start") is policy.at("adapter_off")
        assert policy.at("start").module is policy.module

    def test_adapter_off_is_the_base_model_in_values_and_version(self, lora: Make, make: Make) -> None:
        policy, base = lora(), make()
        off = policy.at("adapter_off")
        version = off.version
        one_step(policy)
        rollout = policy.encode(SAMPLES)
        assert torch.allclose(logps(off, rollout), logps(base, rollout), atol=1e-6)
        assert off.version == version

    def test_a_trained_adapter_starts_from_a_copy_that_shares_the_base(self, lora: Make) -> None:
        first = lora()
        one_step(first)
        policy = LanguagePolicy(first.module, first.tokenizer)
        policy.module.eval()
        rollout = policy.encode(SAMPLES)
        start = policy.at("start")
        assert start is not policy.at("adapter_off")
        assert torch.allclose(logps(start, rollout), logps(policy, rollout), atol=1e-6)
        live = dict(policy.module.named_parameters())
        shared = [n for n, p in start.module.named_parameters() if p is live[n]]
        assert shared == [n for n, p in live.items() if not p.requires_grad]
        one_step(policy)
        assert not torch.allclose(logps(start, rollout), logps(policy, rollout), atol=1e-3)

    def test_state_comes_back_also_after_an_exception(self, lora: Make) -> None:
        policy = lora()
        one_step(policy)
        policy.module.train()
        frozen = next(n for n, p in policy.module.named_parameters() if "lora_A" in n)
        dict(policy.module.named_parameters())[frozen].requires_grad_(False)

        def state() -> list[Any]:
            flags = [(n, p.requires_grad) for n, p in policy.module.named_parameters()]
            return [flags, [m.training for m in policy.module.modules()]]

        before = state()
        rollout = policy.encode(SAMPLES)
        without_dropout(policy)
        live = logps(policy, rollout)

        def broken(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("inside")

        with pytest.raises(RuntimeError, match="inside"):
            policy.at("adapter_off").evaluate(rollout, (broken,))
        assert state() == before
        assert torch.equal(logps(policy, rollout), live)

    def test_a_reference_between_forward_and_backward_does_not_disturb_gradients(self, lora: Make) -> None:
        def gradient(between: bool) -> torch.Tensor:
            policy = lora()
            without_dropout(policy)
            policy.module.train()
            rollout = policy.encode(SAMPLES)
            loss = policy.evaluate(rollout)["logps"].sum()
            if between:
                policy.at("adapter_off").evaluate(rollout)
            loss.backward()
            return torch.cat([p.grad.flatten() for p in policy.module.parameters() if p.requires_grad])

        assert torch.equal(gradient(True), gradient(False))

    def test_prompt_tuning_is_refused(self, make: Make) -> None:
        from peft import PromptTuningConfig, get_peft_model

        base = make(keep_start=False)
        tuned = get_peft_model(base.module, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
        with pytest.raises(ValueError, match="LoRA"):
            LanguagePolicy(tuned, base.tokenizer)


def test_a_view_that_is_written_to_has_a_new_version_and_the_live_policy_stays(policy: LanguagePolicy) -> None:
    """Cached reference log-probs are keyed by the version: a moving average must not keep its first one."""
    rollout, anchor = policy.encode(SAMPLES), policy.keep("ema")
    cached = attach_reference(rollout, anchor)
    assert attach_reference(cached, anchor) is cached
    one_step(policy)
    live, start, before = logps(policy, rollout), logps(policy.at("start"), rollout), anchor.version
    write(anchor, ema(read(anchor), read(policy), 0.5))
    assert anchor.version != before
    moved = attach_reference(cached, anchor)
    assert not torch.allclose(moved["ref_logps"], cached["ref_logps"], atol=1e-3)
    assert torch.equal(logps(policy, rollout), live)
    assert torch.equal(logps(policy.at("start"), rollout), start)
    write(anchor, read(policy))
    assert torch.allclose(logps(anchor, rollout), live, atol=1e-6)


def test_a_view_without_weights_of_its_own_cannot_be_written_to(lora: Make) -> None:
    policy = lora()
    with pytest.raises(ValueError, match="live policy's own weights"):
        write(policy.at("start"), read(policy))
