"""The model's checkpoint, from which both sides load: random weights of a seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.data import tokenizer
from benchmarks.speed.settings import Setting


def write(setting: Setting, folder: Path) -> None:
    """A checkpoint with its tokenizer: a causal model, or one with a one-number head where rewards are computed."""
    made = tokenizer(setting)
    build(setting, made).save_pretrained(folder)
    made.save_pretrained(folder)


def build(setting: Setting, made: Any) -> Any:
    """The model in its dtype; ``made`` is the tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    shape = setting.shape
    config = AutoConfig.for_model(
        shape.family,
        hidden_size=shape.width,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        vocab_size=shape.vocabulary,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=2048,
        bos_token_id=None,
        eos_token_id=made.eos_token_id,
        pad_token_id=made.pad_token_id,
    )
    scores = setting.kind in ("reward_model", "best_of_n")
    if scores:
        config.num_labels = 1
    kind = AutoModelForSequenceClassification if scores else AutoModelForCausalLM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setting.seed)
        return kind.from_config(config).to(getattr(torch, setting.dtype))
