"""Arcs in weight space: two ways from one start are merged without losing their length."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rewardkit.merging.linear import towards_init
from rewardkit.merging.states import State, merged
from rewardkit.registry import entry

SINE = 1e-6
"""Below this sine two ways are parallel (or opposite, or one has no length), and the arc is the straight line."""


@entry(
    "merging:slerp",
    tags=("weight-space",),
    source="Shoemake 1985; of task vectors, layer by layer: Rame et al. 2024 (WARP), arXiv:2406.16768, section 3.2",
)
def slerp(start: State, first: State, second: State, w: float) -> dict[str, Tensor]:
    """Spherical interpolation of two task vectors, tensor by tensor: ``w = 0`` gives ``first``, 1 ``second``, exactly.

    With ``d1 = first - start``, ``d2 = second - start`` and ``W`` the angle between them::

        start + sin((1 - w) W) / sin(W) * d1 + sin(w W) / sin(W) * d2

    Independent runs go almost perpendicular ways; their mean is shorter by a factor of up to sqrt(2), this is not.
    It is not the interpolation of the weights themselves, which are nearly parallel, so that it would be linear.

    Args:
        start: the state that both were trained from. first, second: the two. w: the share of the second.

    Raises:
        ValueError: for states of different models.

    >>> x, y = {"a": torch.tensor([2.0, 0.0])}, {"a": torch.tensor([0.0, 2.0])}
    >>> [round(v, 4) for v in slerp({"a": torch.zeros(2)}, x, y, 0.5)["a"].tolist()]
    [1.4142, 1.4142]
    """
    if w in (0, 1):
        return merged(lambda a: a.clone(), (first, second)[int(w)])
    return merged(lambda s, a, b: _arc(s, a, b, w), start, first, second)


def _arc(start: Tensor, first: Tensor, second: Tensor, w: float) -> Tensor:
    # In double precision: the cosine of a small angle has no digits left in a single one.
    one, two = (first - start).double(), (second - start).double()
    cosine = (one * two).sum() / (one.norm() * two.norm()).clamp(min=torch.finfo(torch.double).tiny)
    angle = torch.arccos(cosine.clamp(-1, 1))
    if angle.sin() < SINE or not one.any() or not two.any():
        return torch.lerp(first, second, w)
    way = (((1 - w) * angle).sin() * one + (w * angle).sin() * two) / angle.sin()
    return start + way.to(start.dtype)


@entry("merging:warp", tags=("weight-space",), source="Rame et al. 2024, arXiv:2406.16768, sections 3.2 and 3.3")
def warp(start: State, runs: Sequence[State], eta: float) -> dict[str, Tensor]:
    """What WARP does after its runs: merge all their task vectors by :func:`slerp`, then go back towards the start.

    More than two are merged one after the other, the m-th with a share of 1/m.

    Args:
        start: the state that all runs began with. runs: at least one. eta: what is kept of the way from the start.

    Raises:
        ValueError: for no runs, or states of different models.

    >>> x, y = {"a": torch.tensor([2.0, 0.0])}, {"a": torch.tensor([0.0, 2.0])}
    >>> [round(v, 4) for v in warp({"a": torch.zeros(2)}, [x, y], 0.5)["a"].tolist()]
    [0.7071, 0.7071]
    """
    if not runs:
        raise ValueError("warp needs at least one run")
    together: State = runs[0]
    for m, run in enumerate(runs[1:], 2):
        together = slerp(start, together, run, 1 / m)
    return towards_init(start, together, eta)
