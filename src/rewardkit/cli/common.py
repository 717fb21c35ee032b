"""What several commands share."""

from __future__ import annotations


def device_of(name: str | None) -> str:
    """The named device; by default CUDA where there is one."""
    import torch

    return name or ("cuda" if torch.cuda.is_available() else "cpu")


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
