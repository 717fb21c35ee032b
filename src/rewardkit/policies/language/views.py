"""What an adapter is, and a fingerprint of weights that changes when they do."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_BLOCK = 2**24


def is_adapter(name: str) -> bool:
    """Whether a PEFT model's parameter of this name is off when adapters are off."""
    return "lora_" in name or ".modules_to_save." in name


def adapter_is_fresh(module: Any) -> bool:
    """Whether a LoRA model still computes its base: every B is 0, and nothing but LoRA was added."""
    names = [n for n, p in module.named_parameters() if p.requires_grad]
    if any("lora_" not in n for n in names) or any("lora_magnitude" in n for n in names):
        return False
    ups = [p for n, p in module.named_parameters() if "lora_B" in n or "lora_embedding_A" in n]
    return bool(ups) and all(not bool(p.detach().any()) for p in ups)


def fingerprint(parameters: Iterable[tuple[str, Tensor]]) -> str:
    """16 hexadecimal digits of names, types, shapes and every bit of the values; the same in every process.

    An integer sum with odd weights modulo 2**64: exact in any order, on any device, one pass; a change of a single
    element always shows.
    """
    known, sums = hashlib.blake2b(digest_size=8), []
    for name, p in parameters:
        known.update(f"{name}:{p.dtype}:{tuple(p.shape)};".encode())
        bits = p.detach().contiguous().flatten().view(_INTEGERS[p.element_size()])
        total = torch.zeros((), dtype=torch.long, device=p.device)
        for start in range(0, len(bits), _BLOCK):
            block = bits[start : start + _BLOCK].long()
            weights = torch.arange(start, start + len(block), device=p.device) * 0x5851F42D4C957F2D
            total += (block * (weights | 1)).sum()
        sums.append(total)
    for total in sums:
        known.update(int(total).to_bytes(8, "little", signed=True))
    return known.hexdigest()
