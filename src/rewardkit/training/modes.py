"""Which parts of a module are in training mode while a step runs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


def enable_checkpointing(module: nn.Module) -> None:
    """Switch gradient checkpointing on, as transformers does it, without re-entrance.

    Raises:
        ValueError: if no part of the module can.
    """
    for part in module.modules():
        switch: Any = getattr(part, "gradient_checkpointing_enable", None)
        if callable(switch):
            switch(gradient_checkpointing_kwargs={"use_reentrant": False})
            return
    raise ValueError(f"gradient_checkpointing: {type(module).__name__} has no gradient_checkpointing_enable()")


@contextmanager
def training_mode(module: nn.Module, *, dropout: bool, checkpointing: bool) -> Iterator[None]:
    """The mode in which a step runs; afterwards the module is in evaluation mode, ready to be sampled.

    Without dropout the whole module stays in evaluation mode, so that log-probs in a step are those that sampling and
    the reference saw. Layers that checkpoint their activations only do so in training mode: these alone are put into
    it, with every dropout rate they hold set to 0, while their children stay in evaluation mode.
    """
    module.train(dropout)
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
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*use_cache.*")
            yield
    finally:
        for part, name, value in held:
            setattr(part, name, value)
        module.eval()
