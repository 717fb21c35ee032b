"""How far two rewards are apart, whatever constant, scale or shaping they are given up to."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from rewardkit.registry import entry

OfStep = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A reward of ``(before [N, D], actions [N, A], after [N, D]) -> [N]``."""


def pearson_distance(first: Tensor, second: Tensor) -> float:
    """``sqrt((1 - correlation) / 2)``: 0 for equal up to a positive scale and a level, 1 for opposite.

    Raises:
        ValueError: for values that are all equal, which have no correlation.

    >>> round(pearson_distance(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([5.0, 7.0, 9.0])), 6)
    0.0
    """
    x, y = (v.double() - v.double().mean() for v in (first, second))
    scale = float(x.norm() * y.norm())
    if not scale > 1e-12:
        raise ValueError("pearson_distance: one of the two is constant, and has no correlation with anything")
    return math.sqrt(max(0.0, (1 - min(1.0, float(x @ y) / scale)) / 2))


@torch.no_grad()
def shaped(
    reward: OfStep, steps: tuple[Tensor, Tensor, Tensor], cover: tuple[Tensor, Tensor, Tensor], gamma: float
) -> Tensor:
    """The canonically shaped reward of ``N`` steps, which no potential changes but by a constant: ``[N]``.

    ``R(s, a, s') + E[gamma R(s', A, S') - R(s, A, S') - gamma R(S, A, S')]``, the mean over ``M`` covering steps.
    """
    before, actions, after = steps
    start, act, reached = cover

    def ahead(states: Tensor) -> Tensor:
        """``E R(state, A, S')`` of each state."""
        n, m = len(states), len(act)
        pairs = states.repeat_interleave(m, 0), act.repeat(n, 1), reached.repeat(n, 1)
        return reward(*pairs).reshape(n, m).mean(1)

    return reward(before, actions, after) + gamma * ahead(after) - ahead(before) - gamma * ahead(start).mean()


@entry(
    "measures:epic_distance",
    aliases=("evals:epic_distance",),
    tags=("reward", "control"),
    source="Gleave et al. 2021, Quantifying differences in reward functions, arXiv:2006.13900, definition 4.4",
)
def epic_distance(
    first: OfStep,
    second: OfStep,
    steps: tuple[Tensor, Tensor, Tensor],
    *,
    cover: tuple[Tensor, Tensor, Tensor] | None = None,
    gamma: float = 0.99,
) -> float:
    """Pearson distance of two canonically shaped rewards: 0 if they order policies alike, 1 if oppositely.

    Args:
        first, second: rewards of steps. steps: ``(before [N, D], actions [N, A], after [N, D])`` of the coverage
            distribution. cover: ``M`` further steps for the inner mean; by default the first 64 of ``steps``. Each
            reward is called on ``N * M`` steps. For rewards of the state reached alone all that is added is a constant:
            :func:`pearson_distance` of their values is the same figure.
        gamma: discount a step.

    >>> s = torch.linspace(-1, 1, 20)[:, None]
    >>> steps = (s, torch.zeros(20, 1), s.flip(0))
    >>> plain = lambda b, a, c: -c[:, 0].square()
    >>> with_potential = lambda b, a, c: 3 * plain(b, a, c) + 0.9 * c[:, 0].exp() - b[:, 0].exp() + 2
    >>> epic_distance(plain, with_potential, steps, gamma=0.9) < 1e-4
    True
    """
    within = tuple(x[:64] for x in steps) if cover is None else cover
    values = [shaped(reward, steps, within, gamma) for reward in (first, second)]  # type: ignore[arg-type]
    return pearson_distance(*values)
