"""What several commands share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


def device_of(name: str | None) -> str:
    """The named device; by default CUDA where there is one."""
    import torch

    return name or ("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def named(option: str, name: str) -> Iterator[None]:
    """Loading a model by an option's value: where nothing can be loaded, the error names both.

    Raises:
        ValueError: in place of the library's own, which speaks of the network alone.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError) and error.filename:
            raise
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(f"{option} {name}: no such folder, and no such model from the hub: {first}") from error


def outcome_line(outcome: Mapping[str, Any], *, smoke: bool = False) -> str:
    """What a recipe's expectation came to: its verdict, the claim, the mean and its interval."""
    verdict = "" if smoke else f"{outcome['verdict']}: "
    mean, low, high = (outcome[k] for k in ("mean", "low", "high"))
    return f"{verdict}{outcome['claim']}: " + ("no figure" if mean is None else f"{mean:.4g} [{low:.4g}, {high:.4g}]")


def say(text: str) -> None:
    """Print a line for the user, once where ``accelerate launch`` started several processes."""
    from rewardkit.training.ranks import Ranks

    if Ranks().main:
        print(text)


def quiet_libraries() -> None:
    """No progress bars and advice of transformers between ours; warnings and errors stay."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
