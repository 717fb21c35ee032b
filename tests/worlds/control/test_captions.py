"""Captions of frames: what they say is the case, and all of it is said often enough."""

from __future__ import annotations

from collections import Counter

import torch

from rewardkit.worlds.control.captions import GOAL, PAPERS, PLACES, captioned, place, positions
from rewardkit.worlds.control.physics import NEAR, distance


def test_places_are_named_by_their_distance_and_come_in_like_numbers() -> None:
    states = positions(400, seed=0)
    words, away = place(states), distance(states)
    for said, d in zip(words, away.tolist(), strict=True):
        lower = [limit for limit in PLACES.values() if limit < PLACES[said]]
        assert max(lower, default=0.0) <= d + 1e-6 and d <= PLACES[said]  # noqa: PT018
    assert min(Counter(words).values()) > 60
    assert ((away < NEAR) == torch.tensor([w == "on the goal" for w in words])).all()


def test_the_paper_that_is_named_is_the_one_that_is_seen() -> None:
    shown = captioned(300, seed=0)
    named = 0
    for s in shown:
        for name, colour in PAPERS.items():
            if name in s.prompt:
                named += 1
                corners = s.output[:, [0, 0, -1, -1], [0, -1, 0, -1]]
                assert (corners - torch.tensor(colour)[:, None]).abs().median() < 0.05
    assert 100 < named < 200
    assert GOAL in {s.prompt for s in shown}
    assert captioned(3, seed=1)[2].prompt == captioned(3, seed=1)[2].prompt
