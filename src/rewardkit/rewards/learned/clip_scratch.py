"""A CLIP of a few thousand weights for the captions of a small world."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

BOS, EOS, UNKNOWN, PAD = "<bos>", "<eos>", "<unk>", "<pad>"


def word_tokenizer(captions: Iterable[str], length: int = 24) -> Any:
    """A token for each word of the captions, lower case, between BOS and EOS.

    Args:
        length: most tokens of a text, BOS and EOS included.

    >>> word_tokenizer(["a red circle"])("a red square").input_ids
    [0, 4, 6, 2, 1]
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = sorted({w for c in captions for w in c.lower().split()})
    vocabulary = {w: i for i, w in enumerate([BOS, EOS, UNKNOWN, PAD, *words])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing(single=f"{BOS} $A {EOS}", special_tokens=[(BOS, 0), (EOS, 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        pad_token=PAD,
        padding_side="right",
        model_max_length=length,
    )


def small_clip(
    tokenizer: Any, *, size: int = 32, width: int = 64, layers: int = 2, patch: int = 8, seed: int = 0
) -> Any:
    """A ``transformers.CLIPModel`` with random weights.

    Args:
        tokenizer: of its texts. size: pixels of an image's side. width: of both transformers and of the embedding, a
            multiple of 16. layers: of each. patch: pixels of a patch's side. seed: of the weights; torch's own
            generator is left as it was.
    """
    from transformers import CLIPConfig, CLIPModel

    shared = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, width // 16),
        "projection_dim": width,
    }
    text = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": tokenizer.model_max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = CLIPConfig(
        text_config=shared | text,
        vision_config=shared | {"image_size": size, "patch_size": patch},
        projection_dim=width,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CLIPModel(config)
