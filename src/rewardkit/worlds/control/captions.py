"""Frames with captions: what a contrastive encoder of this world is trained on."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rewardkit.types import Sample
from rewardkit.worlds.control.physics import NEAR, distance, start
from rewardkit.worlds.control.pictures import frames

PAPERS = {"white": (1.0, 1.0, 1.0), "grey": (0.55, 0.55, 0.6), "yellow": (0.95, 0.9, 0.5), "violet": (0.7, 0.5, 0.9)}
PLACES = {"on the goal": NEAR, "close to the goal": 0.35, "away from the goal": 0.8, "far from the goal": math.inf}
"""What is said of the point, up to which distance from the goal."""
GOAL, PLAIN = "a point on the goal", "a point"


def place(observations: Tensor) -> list[str]:
    """Where the point is, in words, ``[N]``."""
    words, limits = list(PLACES), torch.tensor(list(PLACES.values())[:-1])
    return [words[i] for i in torch.bucketize(distance(observations), limits).tolist()]


def positions(n: int, seed: int) -> Tensor:
    """Observations ``[n, 6]`` at rest, each distance from the goal in equal numbers."""
    chance = torch.Generator().manual_seed(seed)
    found = start(torch.randint(1_000_000, (n,), generator=chance))
    turn = 2 * math.pi * torch.rand(n, generator=chance)
    edges = torch.tensor([0.0, NEAR, 0.35, 0.8, 1.6])
    ring = torch.arange(n) % 4
    away = edges[ring] + (edges[ring + 1] - edges[ring]) * torch.rand(n, generator=chance)
    here = found[:, 4:6] + away[:, None] * torch.stack([turn.cos(), turn.sin()], -1)
    return torch.cat([here.clamp(-1, 1), found[:, 2:]], -1)


def captioned(n: int, seed: int) -> list[Sample]:
    """Frames on papers of all colours; half of the captions name the colour, and some say nothing of the place."""
    chance = torch.Generator().manual_seed(seed + 1)
    states, names = positions(n, seed), list(PAPERS)
    colour = torch.randint(len(names), (n,), generator=chance)
    seen = frames(states, background=torch.tensor(list(PAPERS.values()))[colour])
    said = torch.rand(2, n, generator=chance)
    texts = []
    for where, c, named, placed in zip(place(states), colour.tolist(), *said.tolist(), strict=True):
        paper = f" on {names[c]} paper" if named < 0.5 else ""
        texts.append(f"{PLAIN} {where}{paper}" if placed < 0.85 else PLAIN + paper)
    return [Sample(text, frame) for text, frame in zip(texts, seen, strict=True)]
