"""The modes of a module: evaluation, no dropout, gradient checkpointing, adapters off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every submodule is in the mode it was in, also after an exception."""
    before = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for m, training in before:
            m.training = training


def is_peft(module: Any) -> bool:
    """Whether ``module`` is a PEFT model."""
    return hasattr(module, "peft_config") and hasattr(module, "disable_adapter")


@contextmanager
def adapter_off(module: Any) -> Iterator[None]:
    """The base model of a PEFT model, in evaluation mode.

    Mode and ``requires_grad`` come back, also after an exception: PEFT's own context marks every weight of the
    active adapter as trainable when it leaves.
    """
    before = [(p, p.requires_grad) for p in module.parameters()]
    try:
        with evaluating(module), module.disable_adapter():
            yield
    finally:
        for p, flag in before:
            p.requires_grad_(flag)


def without_dropout(module: nn.Module) -> nn.Module:
    """Set every dropout rate of ``module`` to 0 in place, and return it.

    Training mode is then deterministic: what gradient checkpointing needs (transformers checkpoints in training mode
    only) when the log-probs of the update must be those of sampling.
    """
    for m in module.modules():
        if isinstance(m, nn.modules.dropout._DropoutNd):
            m.p = 0.0
        for name, value in vars(m).items():
            if "dropout" in name and isinstance(value, float):
                setattr(m, name, 0.0)
    return module


def checkpoint_gradients(module: Any) -> None:
    """Recompute each layer in the backward pass instead of keeping its activations. Works with PEFT adapters.

    It acts in training mode only, as transformers defines it; call :func:`without_dropout` first where log-probs must
    not be noisy.
    """
    module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if is_peft(module):
        module.enable_input_require_grads()
