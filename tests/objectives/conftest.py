"""A tiny random causal model, its tokenizer and hand-made batches, for parity with other libraries' trainers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

WORDS = [f"w{i}" for i in range(20)]


@dataclass
class Tiny:
    """Two models of one shape with different weights, a tokenizer, and training arguments without side effects."""

    model: Any
    reference: Any
    tokenizer: Any
    arguments: dict[str, Any]


def _tokenizer() -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(WordLevel({w: i for i, w in enumerate(["<pad>", "<eos>", "<unk>", *WORDS])}, unk_token="<unk>"))
    inner.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )


def _llama(seed: int, cls: str = "LlamaForCausalLM", **extra: Any) -> Any:
    import transformers

    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=len(WORDS) + 3,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        initializer_range=0.4,
        **extra,
    )
    return getattr(transformers, cls)(config).eval()


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    arguments = {
        "output_dir": str(tmp_path),
        "use_cpu": True,
        "report_to": "none",
        "bf16": False,
        "gradient_checkpointing": False,
        "per_device_train_batch_size": 4,
        "logging_strategy": "no",
        "save_strategy": "no",
    }
    return Tiny(_llama(1), _llama(2), _tokenizer(), arguments)


@pytest.fixture
def tiny_scorer() -> Any:
    return _llama(3, "LlamaForSequenceClassification", num_labels=1)


@pytest.fixture
def token_logps() -> Callable[..., Tensor]:
    """Log-probs of ``input_ids[:, 1:]``, by plain log-softmax of the logits: ``[B, L - 1]``."""

    def compute(model: Any, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits = model(input_ids=input_ids, attention_mask=attention_mask).logits[:, :-1]
        return logits.log_softmax(-1).gather(-1, input_ids[:, 1:, None])[..., 0]

    return compute


@pytest.fixture
def assert_parity() -> Callable[[Any, Tensor, Tensor], None]:
    """Two losses of one model agree, and so do their gradients in every weight, to 1e-5 relative."""

    def check(model: Any, ours: Tensor, theirs: Tensor) -> None:
        weights = [p for p in model.parameters() if p.requires_grad]
        mine = torch.autograd.grad(ours, weights, retain_graph=True, allow_unused=True)
        other = torch.autograd.grad(theirs, weights, allow_unused=True)
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
        a, b = (
            torch.cat(
                [torch.zeros_like(w).flatten() if g is None else g.flatten() for w, g in zip(weights, gs, strict=True)]
            )
            for gs in (mine, other)
        )
        assert b.norm() > 1e-6, "the other side has no gradient: nothing would be compared"
        assert (a - b).norm() <= 1e-5 * b.norm()

    return check
