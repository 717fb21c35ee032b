"""Published image generators: diffusers pipelines as policies, and back."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rewardkit.policies.adapters import add_lora
from rewardkit.policies.diffusion.codec import Latents, Pixels
from rewardkit.policies.diffusion.policy import DiffusionPolicy
from rewardkit.policies.diffusion.process import Diffusion, Flow, Process
from rewardkit.policies.diffusion.prompts import Labels, PairedTexts, Texts
from rewardkit.policies.modes import is_peft

NETWORKS = {
    "UNet2DConditionModel": Texts,
    "SD3Transformer2DModel": PairedTexts,
    "DiTTransformer2DModel": Labels,
    "UNet2DModel": None,
}
"""Denoising networks that can be loaded, with what reads their prompts."""

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
"""Where a LoRA adapter sits unless it says otherwise; every attention layer of diffusers has these."""


@dataclass(frozen=True)
class Call:
    """How a diffusers network is called; a learned variance, which some say beside the mean, is left out.

    Args:
        scale: what a process's times are multiplied by for the network.
    """

    scale: float = 1.0

    def __call__(self, module: nn.Module, x: Tensor, times: Tensor, condition: Mapping[str, Tensor] | None) -> Tensor:
        dtype = next(module.parameters()).dtype
        told = {k: v.to(dtype) if v.is_floating_point() else v for k, v in (condition or {}).items()}
        said = module(x.to(dtype), timestep=times * self.scale, **told, return_dict=False)[0]
        return said[:, : x.shape[1]].to(x)


class PipelinePolicy(DiffusionPolicy):
    """A diffusers pipeline whose denoising network is trained; autoencoder and text encoders are frozen.

    Outputs are images ``[3, H, W]`` in [0, 1], whatever the network works on. ``module`` is the network alone, under
    its own parameter names, with the adapter if there is one.

    Args:
        pipeline: Stable Diffusion's or Stable Diffusion 3's, DiT's, or an unconditional one on a ``UNet2DModel``.
        module: the network or a PEFT model of it; default the pipeline's own, all of it trained.
        size: height and width of the images, pixels; default the network's own. options: of ``DiffusionPolicy``.

    Raises:
        ValueError: for a pipeline of another kind.
    """

    def __init__(
        self, pipeline: Any, *, module: nn.Module | None = None, size: int | None = None, **options: Any
    ) -> None:
        self.pipeline, self.part = pipeline, part_of(pipeline)
        net = getattr(pipeline, self.part)
        reader = NETWORKS.get(type(net).__name__, "unknown")
        latent = getattr(pipeline, "vae", None)
        if isinstance(reader, str):
            raise ValueError(f"{type(net).__name__} is not among the networks that can be trained: {sorted(NETWORKS)}")
        if latent is not None and net.config.in_channels != latent.config.latent_channels:
            raise ValueError(
                f"the network reads {net.config.in_channels} channels and the autoencoder has "
                f"{latent.config.latent_channels}: a pipeline that is also given a picture is another policy"
            )
        odd = [k for k in ("addition_embed_type", "time_cond_proj_dim") if net.config.get(k)]
        if odd:
            raise ValueError(f"a network with {odd} is told more than a prompt (SDXL, LCM): that is not implemented")
        for other in pipeline.components.values():
            if isinstance(other, nn.Module) and other is not net:
                other.requires_grad_(False).eval()
        process, times = process_of(pipeline.scheduler)
        own = net.config.sample_size
        side = own if size is None else size // (getattr(pipeline, "vae_scale_factor", 1) if latent is not None else 1)
        height, width = side if isinstance(side, (list, tuple)) else (side, side)
        super().__init__(
            net.requires_grad_(True) if module is None else module,
            process,
            (net.config.in_channels, height, width),
            condition=None if reader is None else reader(pipeline),
            codec=Pixels() if latent is None else Latents(latent),
            call=Call(times),
            **options,
        )

    def save(self, path: str | Path, *, merge: bool = False) -> None:
        """A folder that diffusers loads without rewardkit: the whole pipeline, or the adapter alone.

        An adapter is written as PEFT has it and, where the pipeline can load LoRA weights, as diffusers has it.

        Args:
            path: the folder. merge: write a PEFT model as a whole pipeline, adapter added into the weights.
        """
        module: Any = self.module
        if is_peft(module) and not merge:
            module.save_pretrained(str(path), save_embedding_layers=False)
            self._save_lora(path)
            return
        net = copy.deepcopy(module).merge_and_unload() if is_peft(module) else module
        twin = copy.copy(self.pipeline)
        twin.register_modules(**{self.part: net})
        twin.save_pretrained(str(path))

    def _save_lora(self, path: str | Path) -> None:
        from peft import get_peft_model_state_dict

        write = getattr(type(self.pipeline), "save_lora_weights", None)
        if write is None:
            return
        layers = {
            k.removeprefix("base_model.model."): v.detach().contiguous()
            for k, v in get_peft_model_state_dict(self.module, save_embedding_layers=False).items()
        }
        facts: Any = next(iter(self.module.peft_config.values()))  # type: ignore[operator]
        plain = {k: sorted(v) if isinstance(v, set) else v for k, v in facts.to_dict().items()}
        plain = {k: v for k, v in plain.items() if isinstance(v, (str, int, float, bool, list, type(None)))}
        write(str(path), **{f"{self.part}_lora_layers": layers, f"{self.part}_lora_adapter_metadata": plain})


def load(
    path: str | Path,
    *,
    lora: Any = None,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    revision: str | None = None,
    components: Mapping[str, Any] | None = None,
    **options: Any,
) -> PipelinePolicy:
    """A pipeline from the hub or a folder; a folder with a PEFT adapter brings its base along.

    Args:
        path: hub name or folder. lora: ``peft.LoraConfig`` or its fields, to train a fresh adapter instead of the
            weights; it sits on :data:`ATTENTION` unless it names ``target_modules``. seed: of the adapter.
        dtype: of the weights. device: where to. revision: as in diffusers.
        components: parts to put in place of the folder's own, such as ``{"text_encoder_3": None, "tokenizer_3": None}``
            for Stable Diffusion 3 without its largest encoder. options: of :class:`PipelinePolicy`.
    """
    from diffusers import DiffusionPipeline

    adapter = Path(path) / "adapter_config.json"
    base = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"] if adapter.exists() else path
    given = {"revision": revision} | ({} if dtype is None else {"torch_dtype": dtype})
    pipeline = DiffusionPipeline.from_pretrained(str(base), **given, **(components or {}))
    pipeline = pipeline if device is None else pipeline.to(device)
    net: Any = getattr(pipeline, part_of(pipeline))
    module = None
    if adapter.exists():
        from peft import PeftModel

        module = PeftModel.from_pretrained(net, str(path), is_trainable=True)
    if lora is not None:
        module = _with_lora(net if module is None else module, lora, seed)
        module.peft_config["default"].base_model_name_or_path = str(base)
    return PipelinePolicy(pipeline, module=module, **options)


def _with_lora(net: Any, lora: Any, seed: int) -> Any:
    fields = {"task_type": None, "target_modules": list(ATTENTION), **lora} if isinstance(lora, Mapping) else lora
    return add_lora(net, fields, seed=seed)


def part_of(pipeline: Any) -> str:
    """What a pipeline calls its denoising network.

    Raises:
        ValueError: if it has neither a ``unet`` nor a ``transformer``.
    """
    for name in ("unet", "transformer"):
        if getattr(pipeline, name, None) is not None:
            return name
    raise ValueError(f"{type(pipeline).__name__} has neither unet nor transformer: it has {list(pipeline.components)}")


def process_of(scheduler: Any) -> tuple[Process, float]:
    """The process of a pipeline's scheduler, and what its times are multiplied by for the network.

    Raises:
        ValueError: for a scheduler of neither kind, or one whose shift depends on the size of the image.
    """
    if hasattr(scheduler, "alphas_cumprod"):
        return Diffusion.of(scheduler), 1.0
    config = scheduler.config
    if "shift" not in config or config.get("use_dynamic_shifting"):
        raise ValueError(f"{type(scheduler).__name__} has neither alphas_cumprod nor a fixed shift")
    return Flow(shift=float(config.shift)), float(config.num_train_timesteps)
