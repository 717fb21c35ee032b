"""Order: exact shuffling of lists, bounded shuffling of streams, both by seed and epoch."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

Thing = TypeVar("Thing")


def shuffled(items: Iterable[Thing], *, seed: int = 0, epoch: int = 0, buffer: int = 10_000) -> Iterator[Thing]:
    """Every item once, in an order that seed and epoch fix.

    A sequence is permuted exactly. From a stream, ``buffer`` items are held and a random one is handed out as the next
    comes in: an item may come early by at most ``buffer`` places.

    Raises:
        ValueError: for a buffer of less than one.

    >>> sorted(shuffled(range(5), seed=1)), list(shuffled(range(5), seed=1)) == list(shuffled(range(5), seed=1))
    ([0, 1, 2, 3, 4], True)
    """
    if buffer < 1:
        raise ValueError(f"the buffer holds at least one item, not {buffer}")
    chance = random.Random(f"{seed}/{epoch}")
    if isinstance(items, Sequence):
        order = list(range(len(items)))
        chance.shuffle(order)
        yield from (items[i] for i in order)
        return
    held: list[Thing] = []
    for item in items:
        if len(held) < buffer:
            held.append(item)
            continue
        place = chance.randrange(buffer)
        held[place], item = item, held[place]
        yield item
    chance.shuffle(held)
    yield from held
