"""Small Llamas from nothing, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

SIZES: dict[str, dict[str, int]] = {
    "llama-1m": {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4},
    "llama-4m": {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 4},
    "llama-10m": {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 6},
    "llama-25m": {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 8},
}
"""Named shapes. The number counts the layers' weights alone, so it holds for any vocabulary."""


def scratch_model(
    tokenizer: Any, size: str | Mapping[str, Any] = "llama-1m", *, length: int = 512, seed: int = 0
) -> Any:
    """A Llama with random weights whose vocabulary, BOS, EOS and PAD are the tokenizer's.

    Input and output embedding are one matrix (tied): with a small model they would be most of its weights.

    Args:
        tokenizer: of transformers. size: a name in :data:`SIZES`, or fields of ``LlamaConfig``.
        length: context in tokens. seed: of the initial weights; the global generator is left as it was.

    Raises:
        KeyError: for an unknown size, naming those there are.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    if isinstance(size, str) and size not in SIZES:
        raise KeyError(f"no size {size!r}; there are {sorted(SIZES)}, or give fields of LlamaConfig as a mapping")
    shape = SIZES[size] if isinstance(size, str) else size
    fields = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": length,
        "tie_word_embeddings": True,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **shape,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(LlamaConfig(**fields))
