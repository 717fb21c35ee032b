"""Two coloured shapes and what one of them shall do: the prompt, the true clip, and its exact optical flow."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

SIDE = 16
"""Height and width of a frame, pixels."""
COLOURS = {"red": (0.95, 0.15, 0.15), "green": (0.15, 0.85, 0.25), "blue": (0.2, 0.35, 1.0)}
SHAPES = ("square", "disc")
RADIUS = 2.3
WAYS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
FAR = {"a little": 2.0, "far": 5.0}
"""How far, pixels."""


@dataclass(frozen=True)
class Thing:
    """A shape of a colour with its middle ``(x, y)``, pixels."""

    shape: str
    colour: str
    x: float
    y: float


@dataclass(frozen=True)
class Move:
    """A picture of two things of different colours, and where the first of them shall go.

    >>> move = Move((Thing("square", "red", 8.0, 8.0), Thing("disc", "blue", 3.0, 3.0)), "left", "far")
    >>> move.instruction, move.shift
    ('move the red square left far', (-5.0, 0.0))
    >>> move.picture().shape, move.clip(3).shape, float(move.flow()[0].min())
    (torch.Size([3, 16, 16]), torch.Size([3, 3, 16, 16]), -5.0)
    """

    things: tuple[Thing, Thing]
    way: str
    far: str

    @property
    def instruction(self) -> str:
        """What is asked."""
        return f"move the {self.things[0].colour} {self.things[0].shape} {self.way} {self.far}"

    @property
    def shift(self) -> tuple[float, float]:
        """To the right and down, pixels."""
        x, y = WAYS[self.way]
        return x * FAR[self.far], y * FAR[self.far]

    def picture(self, share: float = 0.0) -> Tensor:
        """``[3, SIDE, SIDE]`` in [0, 1] when this share of the way is made."""
        frame = torch.full((3, SIDE, SIDE), 0.05)
        for k, thing in enumerate(self.things):
            dx, dy = (share * s for s in self.shift) if k == 0 else (0.0, 0.0)
            colour = torch.tensor(COLOURS[thing.colour])[:, None, None]
            frame = torch.lerp(frame, colour.expand_as(frame), _cover(thing.shape, thing.x + dx, thing.y + dy))
        return frame

    def clip(self, frames: int) -> Tensor:
        """What is asked for: ``[frames, 3, SIDE, SIDE]``, equal strides; one frame is the end alone."""
        return torch.stack([self.picture((k + 1) / frames) for k in range(frames)])

    def footprint(self, number: int = 0) -> Tensor:
        """Pixels that a thing covers in the source: bool ``[SIDE, SIDE]``."""
        thing = self.things[number]
        return _cover(thing.shape, thing.x, thing.y) > 0.5

    def flow(self, shifts: tuple[tuple[float, float], ...] | None = None) -> Tensor:
        """Optical flow ``[2, SIDE, SIDE]``, pixels to the right and down: a thing's own shift on the pixels that it
        covers in the source; the true one unless ``shifts`` are given."""
        found = torch.zeros(2, SIDE, SIDE)
        for k, (dx, dy) in enumerate(shifts or (self.shift, (0.0, 0.0))):
            found[:, self.footprint(k)] = torch.tensor([dx, dy])[:, None]
        return found

    def code(self) -> Tensor:
        """One of each word of the instruction: ``[11]``, zeros and ones."""
        first = self.things[0]
        words = ((SHAPES, first.shape), (COLOURS, first.colour), (WAYS, self.way), (FAR, self.far))
        return torch.tensor([float(w == word) for one, word in words for w in one])


def _cover(shape: str, x: float, y: float) -> Tensor:
    line = torch.arange(SIDE) + 0.5
    down, across = (line - y)[:, None], (line - x)[None, :]
    if shape == "square":
        apart = torch.maximum(down.abs(), across.abs()) - 0.9 * RADIUS
    else:
        apart = (down.square() + across.square()).sqrt() - RADIUS
    return (0.5 - apart).clamp(0, 1)


def drawn(chance: random.Random) -> Move:
    """A move at random that stays in the picture; the two things never touch on the way."""
    while True:
        colours = chance.sample(list(COLOURS), 2)
        things = [
            Thing(chance.choice(SHAPES), c, chance.uniform(3, SIDE - 3), chance.uniform(3, SIDE - 3)) for c in colours
        ]
        move = Move((things[0], things[1]), chance.choice(list(WAYS)), chance.choice(list(FAR)))
        dx, dy = move.shift
        a, b = things
        inside = all(2.5 <= v <= SIDE - 2.5 for v in (a.x + dx, a.y + dy))
        apart = all(
            max(abs(a.x + s * dx - b.x), abs(a.y + s * dy - b.y)) > 2 * RADIUS + 1 for s in (0, 0.25, 0.5, 0.75, 1)
        )
        if inside and apart:
            return move
