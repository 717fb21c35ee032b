"""Masked language models of transformers as masked diffusion policies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rewardkit.policies.masked.codec import TextCodec
from rewardkit.policies.masked.nets import HubDenoiser
from rewardkit.policies.masked.policy import MaskedPolicy


def load_masked(path: str | Path, length: int, *, revision: str | None = None, **options: Any) -> MaskedPolicy:
    """A masked language model from the hub or a folder, with its tokenizer.

    Prompts are text that stands before the output and is never masked; ``length`` and holes are counted in tokens.

    Args:
        path: of an ``AutoModelForMaskedLM``. length: of an output. revision: as in transformers. options: of
            :class:`MaskedPolicy`.
    """
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    model = AutoModelForMaskedLM.from_pretrained(str(path), revision=revision)
    tokenizer = AutoTokenizer.from_pretrained(str(path), revision=revision)
    return MaskedPolicy(HubDenoiser(model), TextCodec(tokenizer), length, **options)


def save_masked(policy: MaskedPolicy, path: str | Path) -> None:
    """A folder that ``AutoModelForMaskedLM`` loads without rewardkit, tokenizer included.

    Raises:
        TypeError: for a policy whose network is not of transformers.
    """
    if not isinstance(policy.module, HubDenoiser) or not isinstance(policy.codec, TextCodec):
        raise TypeError("only a policy of load_masked is saved as a transformers folder; save module.state_dict()")
    policy.module.model.save_pretrained(str(path))
    policy.codec.tokenizer.save_pretrained(str(path))
