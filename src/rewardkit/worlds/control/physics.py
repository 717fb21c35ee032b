"""What a step does and what it is worth, in torch and with gradients; environments and rewards share it.

An observation is ``[position 2, velocity 2, goal 2]``. The square runs from -1 to 1.
"""

from __future__ import annotations

import torch
from torch import Tensor

HORIZON = 24
"""Steps of an episode; then time is up."""
TASKS = {"near": 45.0, "side": 100.0, "across": 180.0}
"""Degrees between start and goal on a ring around the hazard: the way to the last one leads through it."""
RING, HAZARD, NEAR = 0.75, 0.3, 0.12
"""Radii: of the ring, of the hazard in the middle, and around the goal where it counts as reached."""
DRAG, PUSH, DANGER = 0.6, 0.05, 2.0
"""Share of the velocity that is kept, velocity a unit of action, and what a step inside the hazard costs."""


def task_of(seed: int) -> str:
    """The task of an episode: they take turns."""
    return list(TASKS)[seed % len(TASKS)]


def start(seeds: Tensor) -> Tensor:
    """First observations ``[N, 6]`` of episodes, each a function of its seed: long ``[N]``."""
    # A multiple of the golden angle spreads the starts evenly over the ring without a random generator a row.
    turn = torch.deg2rad((seeds.double() * 137.50776405) % 360)
    apart = torch.deg2rad(torch.tensor(list(TASKS.values()), dtype=torch.float64)[seeds % len(TASKS)])
    side = torch.where((seeds // len(TASKS)) % 2 == 0, 1.0, -1.0)
    here, goal = (RING * torch.stack([a.cos(), a.sin()], -1) for a in (turn, turn + side * apart))
    return torch.cat([here, torch.zeros_like(here), goal], -1).float()


def advance(observations: Tensor, actions: Tensor) -> Tensor:
    """The observations after one step: ``[N, 6]``, with gradients through both. The walls stop what runs into them.

    Args:
        actions: ``[N, 2]``, accelerations; beyond 1 they count as 1.
    """
    here, velocity, goal = observations.split(2, -1)
    velocity = DRAG * velocity + PUSH * actions.clamp(-1, 1)
    after = (here + velocity).clamp(-1, 1)
    return torch.cat([after, after - here, goal], -1)


def distance(observations: Tensor) -> Tensor:
    """From position to goal: ``[...]``."""
    return (observations[..., 0:2] - observations[..., 4:6]).square().sum(-1).clamp(min=1e-12).sqrt()


def gold(before: Tensor, actions: Tensor, after: Tensor) -> Tensor:
    """What a step is worth, which training never sees: minus the distance to the goal, minus the danger. ``[...]``."""
    depth = HAZARD - after[..., 0:2].square().sum(-1).clamp(min=1e-12).sqrt()
    return -distance(after) - DANGER * torch.sigmoid(depth / 0.04)
