"""The corpus of world ``assistant``: replies of mixed quality to training prompts, for supervised fine-tuning."""

from __future__ import annotations

import random
from dataclasses import replace

from rewardkit.types import Sample
from rewardkit.worlds.assistant.prompts import prompts
from rewardkit.worlds.assistant.replies import mixed


def demonstrations(n: int, seed: int = 0, world_seed: int = 0) -> list[Sample]:
    """``n`` training prompts with one reply each by a writer drawn at random; prompts come round in order.

    >>> demonstrations(2, seed=1)[0].output == demonstrations(2, seed=1)[0].output
    True
    """
    train = prompts("train", seed=world_seed)
    rng = random.Random(f"assistant demonstrations {seed}")
    order: list[Sample] = []
    while len(order) < n:
        order += rng.sample(train, len(train))
    return [replace(prompt, output=mixed(prompt, rng)) for prompt in order[:n]]
