"""Evaluation mode, and back; what kind of model it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


def is_peft(module: Any) -> bool:
    """Whether ``module`` is a PEFT model."""
    return hasattr(module, "peft_config") and hasattr(module, "disable_adapter")


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
