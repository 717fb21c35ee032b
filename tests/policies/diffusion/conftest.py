"""Tiny policies with random weights: on points, and pipelines of diffusers' own classes in folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rewardkit.policies.diffusion import Diffusion, DiffusionPolicy, Flow, PointNet

PROMPTS = ["left", "right"]
WORDS = ["a", "red", "blue", "square", "disc"]
CLIP: dict[str, Any] = {
    "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 40,
    "max_position_embeddings": 16, "projection_dim": 8, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
}  # fmt: skip


def condition(prompt: Any) -> torch.Tensor:
    return torch.zeros(2) if prompt is None else torch.eye(2)[PROMPTS.index(prompt)]


def points(kind: str, **options: Any) -> DiffusionPolicy:
    """On points of three numbers; ``kind`` is ``diffusion`` or ``flow``."""
    torch.manual_seed(0)
    process = Diffusion.cosine(50) if kind == "diffusion" else Flow()
    net = PointNet(3, 2, width=16, depth=1, scale=50.0 if kind == "diffusion" else 1.0)
    return DiffusionPolicy(net, process, (3,), condition=condition, **options)


def tokenizer() -> Any:
    from transformers import CLIPTokenizer

    letters = sorted(set("".join(WORDS)))
    known = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{x}</w>" for x in letters)]
    return CLIPTokenizer(vocab={w: i for i, w in enumerate(known)}, merges=[], model_max_length=16)


def autoencoder(latent: int = 4, shift: float | None = None) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=latent, norm_num_groups=4, layers_per_block=1,
        sample_size=16, scaling_factor=0.5, shift_factor=shift, use_quant_conv=shift is None,
        use_post_quant_conv=shift is None,
    )  # fmt: skip


def stable_diffusion(prediction: str) -> Any:
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    unet = UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, cross_attention_dim=8,
        attention_head_dim=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    scheduler = DDIMScheduler(
        num_train_timesteps=100, beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.05, clip_sample=False,
        prediction_type=prediction, steps_offset=1,
    )  # fmt: skip
    return StableDiffusionPipeline(
        vae=autoencoder(), text_encoder=CLIPTextModel(CLIPTextConfig(**CLIP)), tokenizer=tokenizer(), unet=unet,
        scheduler=scheduler, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def dit() -> Any:
    from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    net = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=4, in_channels=4, out_channels=8, num_layers=1, sample_size=8,
        patch_size=2, num_embeds_ada_norm=3, norm_num_groups=4,
    )  # fmt: skip
    scheduler = DDIMScheduler(num_train_timesteps=100, clip_sample=False)
    pipeline = DiTPipeline(net, autoencoder(), scheduler)
    pipeline.register_to_config(id2label={0: "square", 1: "disc", 2: "cross"})  # as the published ones have it
    return pipeline


def stable_diffusion_3() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    net = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, num_layers=1, attention_head_dim=4, num_attention_heads=2,
        joint_attention_dim=16, caption_projection_dim=8, pooled_projection_dim=16, out_channels=4,
        pos_embed_max_size=8,
    )  # fmt: skip
    encoders = [CLIPTextModelWithProjection(CLIPTextConfig(**CLIP)) for _ in range(2)]
    return StableDiffusion3Pipeline(
        transformer=net, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), vae=autoencoder(shift=0.1),
        text_encoder=encoders[0], tokenizer=tokenizer(), text_encoder_2=encoders[1], tokenizer_2=tokenizer(),
        text_encoder_3=None, tokenizer_3=None,
    )  # fmt: skip


def unconditional() -> Any:
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    unet = UNet2DModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, attention_head_dim=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return DDPMPipeline(unet, DDPMScheduler(num_train_timesteps=100))


PIPELINES = {
    "stable diffusion": (lambda: stable_diffusion("epsilon"), "a red square"),
    "stable diffusion, v": (lambda: stable_diffusion("v_prediction"), "a red square"),
    "dit": (dit, "disc"),
    "stable diffusion 3": (stable_diffusion_3, "a red square"),
    "unconditional": (unconditional, None),
}


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every pipeline, saved by diffusers."""
    found = {}
    for name, (make, _) in PIPELINES.items():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            pipeline = make()
        found[name] = tmp_path_factory.mktemp("pipeline")
        pipeline.save_pretrained(found[name])
    return found
