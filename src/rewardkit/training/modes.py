"""How a model runs: the precision of its forward pass, and which parts are in training mode while a step runs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from rewardkit.protocols import Model, Want
from rewardkit.types import Rollout

Precision = Literal["no", "bf16", "fp16"]
PRECISIONS: dict[str, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}


def forward(model: Model, rollout: Rollout, want: Sequence[Want], precision: Precision) -> dict[str, Tensor]:
    """What ``model`` computes of a rollout under autocast to ``precision``, in single precision at least.

    Whatever is compared with a learner's live tensors goes through here, in the learner's precision: two precisions
    differ by rounding where the weights do not.
    """
    device, dtype = next((p.device.type for p in model.module.parameters()), "cpu"), PRECISIONS.get(precision)
    # Entering it takes longer than a small model does; it is needed to switch on, and to switch another's off.
    needed = dtype is not None or torch.is_autocast_enabled(device)
    with torch.autocast(device, dtype or torch.bfloat16, enabled=dtype is not None) if needed else nullcontext():
        found = model.evaluate(rollout, want=tuple(want))
    return {k: v.float() if v.dtype in PRECISIONS.values() else v for k, v in found.items()}


def enable_checkpointing(module: nn.Module) -> None:
    """Switch gradient checkpointing on, as transformers or diffusers does it, without re-entrance.

    Raises:
        ValueError: if no part of the module can.
    """
    for part in module.modules():
        switch: Any = getattr(part, "gradient_checkpointing_enable", None)
        if callable(switch):
            switch(gradient_checkpointing_kwargs={"use_reentrant": False})
            return
        switch = getattr(part, "enable_gradient_checkpointing", None)
        if callable(switch):
            switch()
            return
    raise ValueError(f"gradient_checkpointing: {type(module).__name__} has no gradient_checkpointing_enable()")


@contextmanager
def training_mode(module: nn.Module, *, dropout: bool, checkpointing: bool) -> Iterator[None]:
    """The mode in which a step runs; afterwards the module is in evaluation mode, ready to be sampled.

    Without dropout the whole module stays in evaluation mode, so that log-probs in a step are those that sampling and
    the reference saw. Layers that checkpoint their activations only do so in training mode: these alone are put into
    it, with every dropout rate they hold set to 0, while their children stay in evaluation mode.
    """
    _switch(module, dropout)
    held: list[tuple[nn.Module, str, float]] = []
    if checkpointing and not dropout:
        for part in module.modules():
            if getattr(part, "gradient_checkpointing", False):
                part.training = True
                for name, value in vars(part).items():
                    if isinstance(value, float) and ("dropout" in name or "layerdrop" in name or name.endswith("drop")):
                        held.append((part, name, value))
                        setattr(part, name, 0.0)
    try:
        with warnings.catch_warnings() if checkpointing else nullcontext():
            if checkpointing:
                warnings.filterwarnings("ignore", message=".*use_cache.*")
            yield
    finally:
        for part, name, value in held:
            setattr(part, name, value)
        if dropout or checkpointing:
            _switch(module, False)


def _switch(module: nn.Module, training: bool) -> None:
    """``module.train(training)`` where anything must change: asking is faster than setting."""
    if any(part.training != training for part in module.modules()):
        module.train(training)
