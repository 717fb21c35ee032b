"""What recipes on world ``tokens`` share."""

from __future__ import annotations

import numpy as np

from rewardkit.papers.kit import share_won
from rewardkit.worlds.tokens import Tokens


def test_the_share_won_is_that_of_answers_drawn_one_by_one() -> None:
    world = Tokens(length=4)
    first, second = (world.demonstrations(60, seed) for seed in (1, 2))
    chance, wins = np.random.default_rng(3), 0
    for a, b in zip(first, second, strict=True):
        gap = (world.liking(a) - world.liking(b)) / world.noise
        wins += chance.random() < 1 / (1 + np.exp(-gap))
    assert 0 < wins < 60
    assert share_won(world, first, second, 3) == wins / 60
