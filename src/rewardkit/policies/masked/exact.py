"""The exact distribution of short sequences: every partly masked state, step by step."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor


def distribution(log_p: Callable[[Tensor, float], Tensor], kinds: int, length: int, steps: int) -> Tensor:
    """Probabilities of all sequences after the last step, with gradients.

    Args:
        log_p: states, long ``[S, L]`` with ``kinds`` for a mask, and the time, to ``[S, L, kinds]``.
        kinds: of tokens. length: of a sequence. steps: of the sampler.

    Returns:
        ``[kinds ** length]``, in the order of :func:`sequences`.

    >>> even = lambda x, time: torch.zeros(*x.shape, 2).log_softmax(-1)
    >>> [round(p, 4) for p in distribution(even, 2, 2, 3).tolist()]
    [0.25, 0.25, 0.25, 0.25]
    """
    states = sequences(kinds + 1, length)
    masked = states == kinds
    probability = masked.all(-1).to(torch.get_default_dtype())
    given = states[:, None] == states[None]
    for i in range(steps):
        leaves = 1 / (steps - i)
        said = torch.nn.functional.pad(log_p(states, 1 - i / steps).exp(), (0, 1))
        said = torch.where(torch.arange(kinds + 1) == kinds, torch.tensor(1 - leaves).to(said), said * leaves)
        # [from, to, position]: a masked position becomes a token or stays, the others keep what they have.
        moves = said.gather(2, states.T[None].expand(len(states), length, -1)).transpose(1, 2)
        probability = probability @ torch.where(masked[:, None], moves, given.to(moves)).prod(-1)
    return probability[~masked.any(-1)]


def sequences(kinds: int, length: int) -> Tensor:
    """All sequences, long ``[kinds ** length, length]``, the last position changing fastest."""
    return torch.tensor(list(itertools.product(range(kinds), repeat=length)))
