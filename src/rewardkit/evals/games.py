"""Preference games on listed outputs: how far a policy is from Nash, and mirror descent without sampling.

A game is ``preference [..., V, V]``, the probability that the row's output beats the column's; opposite entries sum to
1. Any cycle is allowed. Both players choose from the same outputs, so that the value of the game is 1/2.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from rewardkit.registry import entry


def win_rates(preference: Tensor, policy: Tensor) -> Tensor:
    """``P(y beats the policy)`` of every output: ``[..., V, V], [..., V] -> [..., V]``."""
    return (preference @ policy[..., None])[..., 0]


@entry("evals:duality_gap", tags=("exact", "game"), source="Zhang et al. 2025 (ONPO), arXiv:2502.16852, section 3")
def duality_gap(preference: Tensor, policy: Tensor) -> Tensor:
    """``max_q P(q beats policy) - min_q P(policy beats q)``: 0 for a Nash policy and for no other, 1 at most.

    Args:
        preference: ``[..., V, V]``. policy: probabilities ``[..., V]``.

    Returns:
        ``[...]``. By symmetry, twice what the best answer wins beyond 1/2.

    Raises:
        ValueError: if opposite entries of the preference do not sum to 1.

    >>> rock_paper_scissors = torch.tensor([[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]])
    >>> duality_gap(rock_paper_scissors, torch.tensor([1.0, 0.0, 0.0])).item()
    1.0
    >>> duality_gap(rock_paper_scissors, torch.full((3,), 1 / 3)).abs().item() < 1e-6
    True
    """
    if not torch.allclose(preference + preference.mT, torch.ones_like(preference), atol=1e-5):
        raise ValueError("duality_gap: preference[i, j] + preference[j, i] must be 1")
    return 2 * win_rates(preference, policy).amax(-1) - 1


@torch.no_grad()
def mirror_descent(preference: Tensor, start: Tensor, rate: float, *, optimistic: bool) -> Iterator[Tensor]:
    """Self-play with exact win rates, as an endless iterator of the policies that are played.

    Plain: ``pi <- pi * exp(rate * P(y beats pi))``. Optimistic: a base iterate ``h`` moves by the payoff of what was
    played, and what is played next stands one step ahead of it, by the same payoff again as a prediction::

        h_{t+1}  = h_t * exp(rate * P(y beats pi_t))
        pi_{t+1} = h_{t+1} * exp(rate * P(y beats pi_t))

    Moving the base by the payoff that ``pi_t`` itself was made of would make the two one iterate, and this plain
    mirror descent.

    Args:
        preference: ``[..., V, V]``. start: log-probs ``[..., V]``, what is played first. rate: nats a unit of win rate.

    >>> found = mirror_descent(torch.tensor([[0.5, 1.0], [0.0, 0.5]]), torch.zeros(2), 2.0, optimistic=False)
    >>> [round(next(found).exp()[0].item(), 3) for _ in range(3)]
    [0.5, 0.731, 0.881]
    """
    base = played = start.log_softmax(-1)
    while True:
        yield played
        gain = rate * win_rates(preference, played.exp())
        base = (base + gain).log_softmax(-1)
        played = (base + gain).log_softmax(-1) if optimistic else base
