"""Reads a picture: which colours it has, how many shapes of what kind and size, and where. No network, no training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rewardkit.worlds.shapes.scene import AREAS, COLOURS, GROUND, LOWER, PLACES, SHAPES, SIDE, Scene
from rewardkit.worlds.shapes.scene import cover as draw

SMALLEST = 8
"""Pixels that a shape has at least; less is a speck."""
LARGE, LARGEST = 4.65, 7.0
"""The radius from which a shape is large, and half the extent beyond which it is no shape but ground, pixels."""
PARTS = ("colour", "shape", "count", "size", "place")


@dataclass(frozen=True)
class Object:
    """A connected patch: the best matching ``shape`` and how well it fits (intersection over union), its radius and the
    middle of its mass ``(x, y)``, pixels."""

    shape: str
    fit: float
    radius: float
    centre: tuple[float, float]

    @property
    def size(self) -> str:
        """Its word in a caption."""
        return "large" if self.radius > LARGE else "small"


@dataclass(frozen=True)
class Reading:
    """What a picture shows.

    Args:
        colours: share of the coloured pixels by colour. objects: the patches. clear: share of pixels that are ground, a
            colour of the palette or a mixture of the two: nearly 1 in any rendered picture, small in noise.
    """

    colours: dict[str, float]
    objects: tuple[Object, ...]
    clear: float

    @property
    def colour(self) -> str | None:
        """The commonest."""
        return max(self.colours, key=lambda c: self.colours[c]) if self.objects else None

    def parts(self, asked: Scene) -> dict[str, float]:
        """How well the picture does what is asked, each attribute in [0, 1]; ``place`` only where one is named."""
        if not self.objects:
            return dict.fromkeys(PARTS[: 5 if asked.place else 4], 0.0)
        fits = [min(1.0, max(0.0, (o.fit - 0.5) / 0.25)) * (o.shape == asked.shape) for o in self.objects]
        found = {
            "colour": self.colours[asked.colour],
            "shape": sum(fits) / len(fits),
            "count": {0: 1.0, 1: 0.4}.get(abs(len(self.objects) - asked.count), 0.0),
            "size": sum(o.size == asked.size for o in self.objects) / len(self.objects),
        }
        if asked.place is not None:
            centre = [sum(o.centre[k] for o in self.objects) / len(self.objects) - SIDE / 2 for k in (0, 1)]
            ahead = sum(a * b for a, b in zip(centre, PLACES[asked.place], strict=True))
            found["place"] = float(ahead >= 1.5 and ahead >= max(abs(c) for c in centre))
        return found

    def score(self, asked: Scene) -> float:
        """The mean of :meth:`parts`, times how clear the picture is: 0 from a clarity of 0.8 down."""
        found = self.parts(asked)
        return min(1.0, max(0.0, (self.clear - 0.8) / 0.15)) * sum(found.values()) / len(found)


def read(pictures: Tensor) -> list[Reading]:
    """Readings of pictures ``[N, 3, SIDE, SIDE]`` in [0, 1]."""
    ground = torch.tensor(GROUND)[None, :, None, None]
    ways = torch.stack([torch.tensor(c) - torch.tensor(GROUND) for c in COLOURS.values()])
    above = pictures.detach().cpu().float() - ground
    cover_NKHW = (torch.einsum("nchw,kc->nkhw", above, ways) / ways.square().sum(1)[:, None, None]).clamp(0, 1)
    rest = above[:, None] - cover_NKHW[:, :, None] * ways[None, :, :, None, None]
    miss, colour = rest.square().sum(2).sqrt().min(1)
    cover = cover_NKHW.gather(1, colour[:, None])[:, 0]
    on = (cover > 0.5) & (miss < 0.35)
    clear = (miss < 0.2).float().mean((1, 2)).tolist()
    cover = torch.where(miss < 0.35, cover, torch.zeros_like(cover))
    arrays = (on.numpy(), colour.numpy(), cover.numpy())
    return [_one(a, b, c, d) for a, b, c, d in zip(*arrays, clear, strict=True)]


def _one(on: np.ndarray, colour: np.ndarray, cover: np.ndarray, clear: float) -> Reading:
    from scipy import ndimage

    labels, _ = ndimage.label(on)
    objects = []
    for number, box in enumerate(ndimage.find_objects(labels), 1):
        height, width = (s.stop - s.start for s in box)
        if (labels[box] == number).sum() >= SMALLEST and height + width <= 4 * LARGEST:
            objects.append(_object(np.where(ndimage.binary_dilation(labels == number), cover, 0)))
    total = max(1, int(on.sum()))
    shares = {c: float((on & (colour == k)).sum()) / total for k, c in enumerate(COLOURS)}
    return Reading(shares, tuple(objects), clear)


def _object(mass: np.ndarray) -> Object:
    """Each kind of shape is drawn with the patch's mass and place; the one that covers it best is what it is."""
    total, line = mass.sum(), np.arange(SIDE) + 0.5
    x, y = float(mass.sum(0) @ line / total), float(mass.sum(1) @ line / total)
    fits, radii = {}, {s: math.sqrt(total / AREAS[s]) for s in SHAPES}
    for shape, radius in radii.items():
        drawn = draw(shape, x, y - LOWER[shape] * radius, radius)
        fits[shape] = float(np.minimum(mass, drawn).sum() / np.maximum(mass, drawn).sum())
    best = max(fits, key=lambda s: fits[s])
    return Object(best, fits[best], radii[best], (x, y))
