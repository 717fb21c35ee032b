"""Scenes of coloured shapes: what stands in a picture, its caption, and the picture itself."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

SIDE = 32
"""Height and width of a picture, pixels."""
SHAPES = ("square", "disc", "triangle")
COLOURS = {
    "red": (0.90, 0.20, 0.20), "green": (0.20, 0.75, 0.30), "blue": (0.25, 0.40, 0.95), "yellow": (0.95, 0.85, 0.20),
}  # fmt: skip
GROUND = (0.08, 0.08, 0.10)
COUNTS = {"one": 1, "two": 2, "three": 3}
SIZES = {"small": 3.8, "large": 5.5}
"""Radii, pixels."""
PLACES = {"on the left": (-1, 0), "on the right": (1, 0), "at the top": (0, -1), "at the bottom": (0, 1)}
"""Of a lone shape: which way it lies from the middle."""


@dataclass(frozen=True)
class Scene:
    """Equal shapes of one colour.

    Args:
        shape, colour, count, size: words of the caption, the count as a number. place: of a lone shape, or ``None``.
        centres: ``(x, y)`` of each shape, pixels from the left and from the top; empty where only the caption counts.

    >>> Scene("disc", "red", 2, "small").caption
    'two small red discs'
    >>> Scene.parse("one large blue square on the left")
    Scene(shape='square', colour='blue', count=1, size='large', place='on the left', centres=())
    """

    shape: str
    colour: str
    count: int
    size: str
    place: str | None = None
    centres: tuple[tuple[float, float], ...] = ()

    @property
    def caption(self) -> str:
        """What is said of it."""
        number = {v: k for k, v in COUNTS.items()}[self.count]
        noun = self.shape if self.count == 1 else f"{self.shape}s"
        return " ".join([number, self.size, self.colour, noun, *([self.place] if self.place else [])])

    @classmethod
    def parse(cls, caption: str) -> Scene:
        """The scene that a caption speaks of, without centres.

        Raises:
            ValueError: for a text that is no caption of this world.
        """
        number, size, colour, noun, *rest = [*caption.split(), *[""] * 4]
        place = " ".join(w for w in rest if w) or None
        found = noun if noun in SHAPES else noun.removesuffix("s")
        known = number in COUNTS and size in SIZES and colour in COLOURS and found in SHAPES
        if not known or (place is not None and place not in PLACES):
            raise ValueError(f"world shapes has no caption {caption!r}; one is 'two small red discs'")
        return cls(found, colour, COUNTS[number], size, place)

    def code(self) -> Tensor:
        """One of each attribute: ``[17]``, zeros and ones."""
        lists: tuple[list[Any], ...] = (
            list(SHAPES),
            list(COLOURS),
            list(COUNTS.values()),
            list(SIZES),
            [None, *PLACES],
        )
        words = (self.shape, self.colour, self.count, self.size, self.place)
        hot = [float(w == word) for one, word in zip(lists, words, strict=True) for w in one]
        return torch.tensor(hot)

    def placed(self, chance: random.Random) -> Scene:
        """With centres that do not overlap, on the right side of the middle where the caption names one."""
        radius = SIZES[self.size]
        low, high = radius + 1, SIDE - radius - 1
        while True:
            found: list[tuple[float, float]] = []
            for _ in range(50):
                point = (chance.uniform(low, high), chance.uniform(low, high))
                if self.place is not None and not _lies(point, self.place):
                    continue
                if all(max(abs(point[0] - a), abs(point[1] - b)) > 2 * radius + 1.5 for a, b in found):
                    found.append(point)
                if len(found) == self.count:
                    return replace(self, centres=tuple(found))

    def picture(self) -> Tensor:
        """``[3, SIDE, SIDE]`` in [0, 1], edges softened over a pixel."""
        covers = [cover(self.shape, x, y, SIZES[self.size]) for x, y in self.centres]
        whole = torch.from_numpy(np.max([np.zeros((SIDE, SIDE)), *covers], axis=0)).float()
        ground, colour = (torch.tensor(c)[:, None, None] for c in (GROUND, COLOURS[self.colour]))
        return ground + whole * (colour - ground)


def _lies(point: tuple[float, float], place: str) -> bool:
    """Clearly that way from the middle, and more that way than any other."""
    along = [(p - SIDE / 2) * w for p, w in zip(point, PLACES[place], strict=True)]
    across = [abs(p - SIDE / 2) * (1 - abs(w)) for p, w in zip(point, PLACES[place], strict=True)]
    return sum(along) > 3 and sum(along) > sum(across) + 2


def cover(shape: str, x: float, y: float, radius: float) -> np.ndarray:
    """How much of each pixel a shape covers, ``[SIDE, SIDE]`` in [0, 1], from the signed distance to its edge.

    A square reaches 0.9 radii to each side, a triangle from one radius above its centre to 0.8 below.
    """
    line = np.arange(SIDE) + 0.5
    down, across = (line - y)[:, None], (line - x)[None, :]
    if shape == "square":
        apart = np.maximum(np.abs(down), np.abs(across)) - 0.9 * radius
    elif shape == "disc":
        apart = np.sqrt(down**2 + across**2) - radius
    else:
        apart = np.maximum(down - 0.8 * radius, 0.876 * (np.abs(across) - 0.55 * (down + radius)))
    return np.clip(0.5 - apart, 0, 1)


AREAS = {"square": 3.24, "disc": math.pi, "triangle": 1.782}
"""Of a shape of radius 1."""
LOWER = {"square": 0.0, "disc": 0.0, "triangle": 0.2}
"""How far the middle of a shape's mass lies below its centre, radii."""


def captions(*, places: bool = True) -> list[str]:
    """Every caption of the world, with and without a place."""
    found = []
    for shape, colour, (number, size) in itertools.product(SHAPES, COLOURS, itertools.product((1, 2, 3), SIZES)):
        found.append(Scene(shape, colour, number, size).caption)
        if places and number == 1:
            found += [Scene(shape, colour, 1, size, place).caption for place in PLACES]
    return found


def drawn(chance: random.Random) -> Scene:
    """A scene at random, a lone shape's place being named half of the time."""
    count = chance.choice((1, 2, 3))
    place = chance.choice(list(PLACES)) if count == 1 and chance.random() < 0.5 else None
    scene = Scene(chance.choice(SHAPES), chance.choice(list(COLOURS)), count, chance.choice(list(SIZES)), place)
    return scene.placed(chance)


def garbled(scene: Scene, chance: random.Random, share: float) -> Scene:
    """Each attribute replaced by another at random with probability ``share``: a demonstration of lower quality."""

    def maybe(value: str, among: list[str]) -> str:
        return chance.choice([a for a in among if a != value]) if chance.random() < share else value

    count = int(maybe(str(scene.count), ["1", "2", "3"]))
    place = scene.place if count == 1 and chance.random() >= share else None
    shape, colour = maybe(scene.shape, list(SHAPES)), maybe(scene.colour, list(COLOURS))
    return Scene(shape, colour, count, maybe(scene.size, list(SIZES)), place).placed(chance)
