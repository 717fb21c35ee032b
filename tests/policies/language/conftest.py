"""Tiny random models of several families over one small tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

from rewardkit.policies.language import LanguagePolicy, train_tokenizer

TEXTS = ["the cat sat on the mat and said hello to the dog", "how are you today? fine, thank you!"] * 4
TINY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
KV = {**TINY, "num_key_value_heads": 2}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", KV),
    "gpt2": ("GPT2", {"n_embd": 32, "n_layer": 2, "n_head": 4}),
    "qwen2": ("Qwen2", KV),
    "qwen3": ("Qwen3", {**KV, "head_dim": 8}),
    "gemma2": (
        "Gemma2",
        {**KV, "head_dim": 8, "sliding_window": 6, "final_logit_softcapping": 2.0, "attn_logit_softcapping": 5.0},
    ),
    "gpt_neox": ("GPTNeoX", TINY),
    "mistral": ("Mistral", {**KV, "sliding_window": 6}),
    "phi": ("Phi", TINY),
    "cohere": ("Cohere", {**KV, "logit_scale": 0.25}),
    "bloom": ("Bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "lfm2": ("Lfm2", KV),
    "mamba": ("Mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}),
    "granite": ("Granite", {**KV, "logits_scaling": 3.0}),
    "gemma3": ("Gemma3Text", {**KV, "head_dim": 8, "sliding_window": 6, "sliding_window_pattern": 2}),
    "phi3": ("Phi3", {**KV, "sliding_window": 6}),
    "olmo": ("Olmo", TINY),
    "olmo2": ("Olmo2", KV),
    "olmo3": ("Olmo3", {**KV, "sliding_window": 6}),
    "gpt_oss": (
        "GptOss",
        {**KV, "head_dim": 8, "sliding_window": 6, "num_local_experts": 2, "num_experts_per_tok": 1},
    ),
    "qwen3_next": (
        "Qwen3Next",
        {
            **KV,
            "head_dim": 8,
            "num_experts": 2,
            "num_experts_per_tok": 1,
            "moe_intermediate_size": 16,
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "layer_types": ["linear_attention", "full_attention"],
        },
    ),
    "llama4": (
        "Llama4Text",
        {
            **KV,
            "head_dim": 8,
            "intermediate_size_mlp": 48,
            "num_local_experts": 2,
            "attention_chunk_size": 8,
            "no_rope_layers": [1, 1],
        },
    ),
}


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return train_tokenizer(TEXTS, 320)


def build(family: str, tokenizer: Any, **changes: Any) -> Any:
    """A random model with spread-out logits, so that a wrong position or mask shows."""
    prefix, fields = FAMILIES[family]
    config = getattr(transformers, f"{prefix}Config")(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **{"max_position_embeddings": 96, **fields, **changes},
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.mul_(6)
    return model.eval()


@pytest.fixture(params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest, tokenizer: Any) -> LanguagePolicy:
    return LanguagePolicy(build(request.param, tokenizer), tokenizer, keep_start=False)


@pytest.fixture
def make(tokenizer: Any) -> Callable[..., LanguagePolicy]:
    """``make("gpt2", padding_side="left")``: a policy of a family with options."""

    def policy(family: str = "llama", model: dict[str, Any] | None = None, **options: Any) -> LanguagePolicy:
        return LanguagePolicy(build(family, tokenizer, **(model or {})), tokenizer, **options)

    return policy


@pytest.fixture
def lora(tokenizer: Any) -> Callable[..., LanguagePolicy]:
    """A policy with a fresh LoRA adapter."""

    def policy(family: str = "llama", **options: Any) -> LanguagePolicy:
        from rewardkit.policies.adapters import add_lora

        targets = {"llama": ["q_proj", "v_proj", "down_proj"], "gpt2": ["c_attn"]}.get(family, "all-linear")
        fields = {"r": 4, "lora_alpha": 8, "target_modules": targets, "lora_dropout": 0.1}
        return LanguagePolicy(add_lora(build(family, tokenizer), fields), tokenizer, **options)

    return policy
