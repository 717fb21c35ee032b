"""Fresh LoRA adapters on any model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from rewardkit.policies.modes import is_peft


def add_lora(model: Any, lora: Any, *, seed: int = 0) -> Any:
    """``model`` with a fresh LoRA adapter.

    Args:
        model: a transformers model. lora: a ``peft.LoraConfig`` or its fields.
        seed: of the adapter's weights; the global generator is left as it was.

    Raises:
        ValueError: for a model that has an adapter.
    """
    from peft import LoraConfig, get_peft_model

    if is_peft(model):
        raise ValueError(
            "this model has an adapter already: train that one (without lora=), or merge it first with "
            "policy.save(path, merge=True) and load the folder"
        )
    config = LoraConfig(**{"task_type": "CAUSAL_LM", **lora}) if isinstance(lora, Mapping) else lora
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(model, config)
