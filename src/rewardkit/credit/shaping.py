"""Potential-based shaping: rewards that change no optimal policy."""

from __future__ import annotations

from torch import Tensor

from rewardkit.credit.returns import gae
from rewardkit.registry import entry


@entry("credit:potential_shaping", tags=("dense",), source="Ng, Harada & Russell 1999, Policy invariance, theorem 1")
def potential_shaping(
    rewards: Tensor, potentials: Tensor, mask: Tensor, bootstrap: Tensor | None = None, *, gamma: float = 1.0
) -> dict[str, Tensor]:
    """``rewards[t] + gamma * potentials[t'] - potentials[t]``, where ``t'`` is the next position of positive mask.

    Args:
        rewards: ``[B, T]``. potentials: ``[B, T]``, of the state before the action. mask: ``[B, T]``.
        bootstrap: ``[B]``, the potential of the state after the last action: 0 (the default) where the episode ended.
        gamma: the discount of the return that is optimised; with another one the optimum moves.

    Returns:
        ``rewards`` ``[B, T]``, 0 outside the mask.

    >>> import torch
    >>> potential_shaping(torch.tensor([[0.0, 1.0]]), torch.tensor([[2.0, 3.0]]), torch.ones(1, 2))["rewards"].tolist()
    [[1.0, -2.0]]
    """
    return {"rewards": gae(rewards, potentials, mask, bootstrap, gamma=gamma, lam=0.0)["advantages"]}
