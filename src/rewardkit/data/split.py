"""Splitting by prompt: a prompt's side is a function of the prompt and the seed alone.

So the same prompt is never on both sides, whatever the order, in a stream as in a list, and in two files as in one. The
price: fractions hold in expectation, not exactly. The prompt of an item is the user's own words (``Sample.asked``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TypeVar

from rewardkit.types import Judgement, Sample

Kind = TypeVar("Kind", Judgement, Sample)


def position(item: Judgement | Sample, seed: int = 0) -> float:
    """A number in [0, 1) that depends on the item's prompt and the seed: uniform over prompts.

    >>> position(Sample("2 + 2?", "4")) == position(Sample("2 + 2?", "5"))
    True
    """
    first = item.items[0] if isinstance(item, Judgement) else item
    text = json.dumps([seed, first.asked], sort_keys=True, default=str)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest()) / 2**56


def part_of(item: Judgement | Sample, fractions: Mapping[str, float], seed: int = 0) -> str | None:
    """The name of the part that an item falls into; ``None`` for the remainder of fractions that sum to less than 1.

    Raises:
        ValueError: for fractions that are negative or sum to more than 1.
    """
    if min(fractions.values(), default=0.0) < 0 or sum(fractions.values()) > 1 + 1e-9:
        raise ValueError(f"fractions are not negative and sum to at most 1, not {dict(fractions)}")
    at, upper = position(item, seed), 0.0
    for name, fraction in fractions.items():
        upper += fraction
        if at < upper or (upper > 1 - 1e-9 and fraction):
            return name
    return None


def split(items: Iterable[Kind], fractions: Mapping[str, float], seed: int = 0) -> dict[str, list[Kind]]:
    """Items by part, each part in the order of ``items``.

    >>> parts = split([Sample(str(i)) for i in range(1000)], {"train": 0.8, "test": 0.2})
    >>> 760 < len(parts["train"]) < 840, len(parts["train"]) + len(parts["test"])
    (True, 1000)
    """
    parts: dict[str, list[Kind]] = {name: [] for name in fractions}
    for item in items:
        name = part_of(item, fractions, seed)
        if name is not None:
            parts[name].append(item)
    return parts
