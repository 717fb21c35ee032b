"""Dropout, gradient checkpointing and a reference that stays where it is, on small language models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, OPTConfig

from rewardkit.objectives.imitation import sft
from rewardkit.objectives.policy import kl, reinforce
from rewardkit.policies.adapters import add_lora
from rewardkit.policies.language import LanguagePolicy, Sampling, train_tokenizer
from rewardkit.training import Learner, Term, attach_reference
from rewardkit.types import Sample

TEXT = ["Say yes. Say no. Yes! No! Maybe."]


def model(family: str, lora: bool = False) -> LanguagePolicy:
    tokenizer = train_tokenizer(TEXT, 280)
    common: dict[str, Any] = {"vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 2}
    common |= {"num_attention_heads": 2, "attention_dropout": 0.5, "max_position_embeddings": 64}
    if family == "llama":
        config = LlamaConfig(**common, intermediate_size=32)
    else:
        config = OPTConfig(**common, ffn_dim=32, word_embed_proj_dim=16, dropout=0.5, layerdrop=0.5)
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(config)
    if lora:
        module = add_lora(module, {"r": 2, "target_modules": ["q_proj", "down_proj"], "lora_dropout": 0.5})
        for name, weight in module.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight)
    return LanguagePolicy(module, tokenizer)


def rows(policy: LanguagePolicy):
    return policy.encode([Sample("Say yes.", " Yes!"), Sample("Say no.", " No! Maybe.")])


@pytest.mark.parametrize(("family", "lora"), [("llama", False), ("opt", False), ("llama", True)])
def test_gradient_checkpointing_recomputes_and_changes_nothing(family: str, lora: bool) -> None:
    """R40: checkpointing needs training mode, and must not bring dropout or layer drop with it."""
    policy = model(family, lora)
    data = rows(policy)
    plain = Learner(policy).grads(Term(data, sft))
    learner, recomputed = Learner(policy, gradient_checkpointing=True), []
    for layer in policy.module.modules():
        call = getattr(layer, "_gradient_checkpointing_func", None)
        if call is not None:
            layer._gradient_checkpointing_func = lambda *a, call=call, **o: recomputed.append(1) or call(*a, **o)
    again = learner.grads(Term(data, sft))
    assert len(recomputed) >= 2
    torch.testing.assert_close(again, plain, rtol=1e-4, atol=1e-6)
    assert not any(m.training for m in policy.module.modules())
    assert policy.module.config.attention_dropout == 0.5


def test_model_without_checkpointing_is_refused() -> None:
    from rewardkit.policies.table import TablePolicy

    with pytest.raises(ValueError, match="gradient_checkpointing"):
        Learner(TablePolicy(["x"], ["a"]), gradient_checkpointing=True)


def test_log_probs_of_a_step_are_those_of_sampling() -> None:
    """R38, R40: with dropout in the model, the first ratio is still 1; the reference neither moves nor trains."""
    policy = model("llama")
    rollout = policy.sample(["Say yes.", "Say no."], 2, sampling=Sampling(max_new_tokens=5), seed=0)
    start = policy.at("start")
    before = {n: p.clone() for n, p in start.module.named_parameters()}
    rollout = attach_reference(rollout, start).with_tensors(advantages=torch.randn(rollout.mask.shape))
    torch.testing.assert_close(rollout["ref_logps"], rollout["old_logps"], atol=1e-4, rtol=0)
    learner = Learner(policy, lr=1e-2, micro_batch=3)
    first = learner.step(Term(rollout, reinforce), Term(rollout, kl, coef=0.1))
    assert first["kl/loss"] == pytest.approx(0.0, abs=1e-6)
    assert learner.step(Term(rollout, reinforce), Term(rollout, kl, coef=0.1))["kl/loss"] > 1e-6
    for name, p in start.module.named_parameters():
        assert torch.equal(p, before[name])
        assert not p.requires_grad


@pytest.mark.parametrize("micro_batch", [1, 2])
def test_language_gradients_do_not_depend_on_micro_batches(micro_batch: int) -> None:
    """R1 with ragged text."""
    policy = model("llama")
    data = policy.encode([Sample("Say yes.", " Yes!"), Sample("Say no.", " No! Maybe."), Sample("Say", " no")])
    whole, parts = (
        Learner(policy).grads(Term(data, sft)),
        Learner(policy, micro_batch=micro_batch).grads(Term(data, sft)),
    )
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-7)


def test_adapters_train_and_their_base_does_not() -> None:
    tokenizer = train_tokenizer(TEXT, 280)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    policy = LanguagePolicy.scratch(tokenizer, size, length=64, lora={"r": 2, "target_modules": ["q_proj"]})
    base = {n: p.clone() for n, p in policy.module.named_parameters() if "lora" not in n}
    learner = Learner(policy, lr=0.1)
    data = attach_reference(rows(policy), policy.at("start"))
    assert all("lora" in n for n in learner.state_dict()["weights"])
    for _ in range(3):
        metrics = learner.step(Term(data, sft), Term(data, kl, coef=0.1))
    assert metrics["kl/loss"] > 0
    own = dict(policy.module.named_parameters())
    assert all(torch.equal(own[n], p) for n, p in base.items())
    torch.testing.assert_close(attach_reference(rows(policy), policy.at("start"))["ref_logps"], data["ref_logps"])
