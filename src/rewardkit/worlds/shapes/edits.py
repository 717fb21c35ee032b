"""Prompts with a picture: edits by instruction, and holes to be filled in."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from rewardkit.types import Sample
from rewardkit.worlds.shapes.scene import COLOURS, SHAPES, SIDE, Scene, drawn


@dataclass(frozen=True)
class Edit:
    """A picture and what shall become of it.

    >>> scene = Scene("disc", "red", 1, "large", centres=((16.0, 16.0),))
    >>> Edit(scene, "colour", "blue").instruction, Edit(scene, "shape", "square").target.caption
    ('make it blue', 'one large red square')
    """

    source: Scene
    attribute: str
    value: str

    @property
    def instruction(self) -> str:
        """What is asked."""
        return f"make it {self.value}" if self.attribute == "colour" else f"make it a {self.value}"

    @property
    def target(self) -> Scene:
        """The scene that does it and changes nothing else."""
        return replace(self.source, **{self.attribute: self.value})  # type: ignore[arg-type]

    def picture(self) -> Tensor:
        """The source, ``[3, SIDE, SIDE]``."""
        return self.source.picture()


@dataclass(frozen=True)
class Hole:
    """A picture with a square hole, and the caption of the whole.

    Args:
        target: the whole scene. left, top, side: of the hole, pixels.
    """

    target: Scene
    left: int
    top: int
    side: int = 16

    def mask(self) -> Tensor:
        """``[SIDE, SIDE]``, 1 where a pixel is given."""
        found = torch.ones(SIDE, SIDE)
        found[self.top : self.top + self.side, self.left : self.left + self.side] = 0
        return found

    def picture(self) -> Tensor:
        """What is given, ``[3, SIDE, SIDE]``; the hole is white."""
        mask = self.mask()
        return mask * self.target.picture() + (1 - mask)


def edits(n: int, *, seed: int) -> list[Sample]:
    """``n`` edits of colour or shape, with the pictures that do as asked."""
    chance, found = random.Random(seed), []
    for _ in range(n):
        scene = replace(drawn(chance), place=None)
        attribute = chance.choice(("colour", "shape"))
        among = [v for v in (COLOURS if attribute == "colour" else SHAPES) if v != getattr(scene, attribute)]
        prompt = Edit(scene, attribute, chance.choice(among))
        found.append(Sample(prompt, prompt.target.picture()))
    return found


def holes(n: int, *, seed: int) -> list[Sample]:
    """``n`` pictures with holes, with the whole pictures."""
    chance, found = random.Random(seed), []
    for _ in range(n):
        prompt = Hole(drawn(chance), chance.randint(2, 14), chance.randint(2, 14))
        found.append(Sample(prompt, prompt.target.picture()))
    return found
