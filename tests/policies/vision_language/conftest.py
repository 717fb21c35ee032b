"""Tiny vision-language models with random weights, LLaVA's and Qwen2-VL's, built without a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLImageProcessorPil, Qwen2VLProcessor

from rewardkit.policies.language import train_tokenizer
from rewardkit.policies.vision_language import VisionLanguagePolicy

TINY = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
MARKS = ["<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "<|video_pad|>"]
QWEN_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' }}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}{% else %}{{ part['text'] }}"
    "{% endif %}{% endfor %}{{ '<|eos|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


class ImagesOnly(Qwen2VLProcessor):
    """Without the video processor, which needs torchvision."""

    def check_argument_for_proper_class(self, name: str, arg: Any) -> Any:
        return None if name == "video_processor" else super().check_argument_for_proper_class(name, arg)


def llava(**options: Any) -> VisionLanguagePolicy:
    tokenizer = train_tokenizer(["What is it? A cat. A dog."] * 9, 300)
    policy = VisionLanguagePolicy.scratch(tokenizer, TINY, image=16, patch=8, length=96, **options)
    return sharpened(policy)


def qwen() -> VisionLanguagePolicy:
    tokenizer = train_tokenizer(["What is it? A cat. A dog."] * 9, 310, specials=MARKS)
    ids = dict(zip(MARKS, tokenizer.convert_tokens_to_ids(MARKS), strict=True))
    text = {
        **TINY, "vocab_size": len(tokenizer), "num_key_value_heads": 2, "max_position_embeddings": 96,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0},
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None,
    }  # fmt: skip
    vision = {"depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "patch_size": 4}
    torch.manual_seed(0)
    model = Qwen2VLForConditionalGeneration(
        Qwen2VLConfig(
            text_config=text,
            vision_config=vision,
            image_token_id=ids["<|image_pad|>"],
            video_token_id=ids["<|video_pad|>"],
            vision_start_token_id=ids["<|vision_start|>"],
            vision_end_token_id=ids["<|vision_end|>"],
        )
    )
    images = Qwen2VLImageProcessorPil(patch_size=4, merge_size=2, size={"shortest_edge": 64, "longest_edge": 1024})
    processor = ImagesOnly(images, tokenizer, video_processor=None, chat_template=QWEN_TEMPLATE)
    return sharpened(VisionLanguagePolicy(model, processor))


def sharpened(policy: VisionLanguagePolicy) -> VisionLanguagePolicy:
    """Random weights say almost the same whatever they see: larger ones do not."""
    with torch.no_grad():
        for name, p in policy.module.named_parameters():
            if p.ndim > 1 and "lora" not in name:
                p.mul_(5)
    policy.keep("start")
    return policy


@pytest.fixture(params=["llava", "qwen", "gemma"])
def policy(request: pytest.FixtureRequest) -> VisionLanguagePolicy:
    build: dict[str, Callable[[], VisionLanguagePolicy]] = {"llava": llava, "qwen": qwen, "gemma": gemma}
    return build[request.param]()


def asks(image: Any, text: str = "What is it?") -> list[dict[str, Any]]:
    """A question about a picture, or about two."""
    images = image if isinstance(image, list) else [image]
    parts = [{"type": "image", "image": i} for i in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def picture(seed: int, height: int = 16, width: int = 16) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


def gemma() -> VisionLanguagePolicy:
    """Gemma 3: the tokens of an image see each other, and every other layer has a window."""
    from transformers import (
        Gemma3Config,
        Gemma3ForConditionalGeneration,
        Gemma3ImageProcessorPil,
        Gemma3Processor,
    )

    marks = ["<start_of_image>", "<end_of_image>", "<image_soft_token>"]
    tokenizer = train_tokenizer(["What is it? A cat. A dog."] * 9, 310, specials=marks)
    ids = dict(zip(marks, tokenizer.convert_tokens_to_ids(marks), strict=True))
    for name, mark in zip(("boi_token", "eoi_token", "image_token"), marks, strict=True):
        setattr(tokenizer, name, mark)
        setattr(tokenizer, f"{name}_id", ids[mark])
    text = {
        **TINY, "vocab_size": len(tokenizer), "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 96,
        "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"],
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
    }  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16,
        "patch_size": 4, "vision_use_head": False,
    }  # fmt: skip
    torch.manual_seed(0)
    model = Gemma3ForConditionalGeneration(
        Gemma3Config(
            text_config=text,
            vision_config=vision,
            mm_tokens_per_image=4,
            boi_token_index=ids["<start_of_image>"],
            eoi_token_index=ids["<end_of_image>"],
            image_token_index=ids["<image_soft_token>"],
        )
    )
    with torch.no_grad():
        model.model.multi_modal_projector.mm_input_projection_weight.normal_()  # zeros as it is made
    images = Gemma3ImageProcessorPil(size={"height": 16, "width": 16})
    template = QWEN_TEMPLATE.replace("<|vision_start|><|image_pad|><|vision_end|>", "<start_of_image>")
    processor = Gemma3Processor(images, tokenizer, chat_template=template, image_seq_length=4)
    return sharpened(VisionLanguagePolicy(model, processor))
