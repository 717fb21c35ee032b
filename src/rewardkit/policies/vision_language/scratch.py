"""A small LLaVA from nothing, with its processor."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from rewardkit.policies.language.scratch import SIZES

IMAGE = "<image>"

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '" + IMAGE + "' }}"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""That of :mod:`rewardkit.policies.language.tokenizer` for messages in parts."""


def scratch_llava(
    tokenizer: Any,
    size: str | Mapping[str, Any] = "llama-1m",
    *,
    image: int = 32,
    patch: int = 8,
    length: int = 512,
    seed: int = 0,
) -> tuple[Any, Any]:
    """A LLaVA with random weights, its vision tower of the language model's width, and its processor.

    Args:
        tokenizer: of :func:`rewardkit.policies.language.tokenizer.train_tokenizer`; a copy gets an image token.
        size: of the language model, as in :func:`rewardkit.policies.language.scratch.scratch_model`; two layers of
            vision. image: side that images are scaled to, pixels. patch: side of a patch, pixels; each is one token.
        length: context in tokens, patches included. seed: of the weights; the global generator is left as it was.

    Returns:
        model and processor.
    """
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]}, replace_extra_special_tokens=False)
    shape = SIZES[size] if isinstance(size, str) else size
    ends = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    text = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=length, tie_word_embeddings=True, **ends, **shape
    )
    vision = CLIPVisionConfig(
        hidden_size=text.hidden_size,
        intermediate_size=2 * text.hidden_size,
        num_hidden_layers=2,
        num_attention_heads=text.num_attention_heads,
        image_size=image,
        patch_size=patch,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
        **ends,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": image}, crop_size=image),
        tokenizer=tokenizer,
        patch_size=patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    return model, processor
