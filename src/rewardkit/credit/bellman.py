"""Targets of critics on single transitions, and the weights by which advantage-weighted imitation follows them."""

from __future__ import annotations

import torch
from torch import Tensor

from rewardkit.registry import entry


@entry(
    "credit:td_target",
    tags=("dense", "off-policy"),
    source="Bellman 1957; the value of the next state may be soft: Haarnoja et al. 2018, arXiv:1812.05905, equation 3",
)
def td_target(
    rewards: Tensor, next_values: Tensor, terminal: Tensor, mask: Tensor, *, gamma: float = 0.99
) -> dict[str, Tensor]:
    """``returns = rewards + gamma (1 - terminal) next_values``.

    An episode that ran out of time has a next state, whose value counts; one that the environment ended has none.

    Args:
        rewards: ``[B, T]``. next_values: ``[B, T]``, of the state that each action led to, by a frozen critic. It may
            be anything where ``terminal`` is 1. terminal: ``[B, T]``, 1 where the environment ended the episode, and 0
            where time ran out. gamma: discount a step.

    >>> two = torch.ones(1, 2)
    >>> td_target(two, 10 * two, torch.tensor([[0.0, 1.0]]), two, gamma=0.5)["returns"].tolist()
    [[6.0, 1.0]]
    """
    if not 0 <= gamma <= 1:
        raise ValueError(f"td_target: gamma lies between 0 and 1, not {gamma}")
    wide = torch.promote_types(rewards.dtype, torch.float32)
    ahead = torch.where(terminal > 0, torch.zeros_like(next_values), next_values).to(wide)
    returns = rewards.to(wide) + gamma * ahead
    return {"returns": torch.where(mask > 0, returns, torch.zeros_like(returns))}


@entry(
    "credit:exponential_weight",
    aliases=("advantage_weight",),
    tags=("off-policy", "offline"),
    source="Peng et al. 2019 (AWR), arXiv:1910.00177, equation 5; IQL: arXiv:2110.06169, equation 7",
)
def exponential_weight(
    old_q: Tensor, values: Tensor, mask: Tensor, *, beta: float = 3.0, largest: float = 100.0
) -> dict[str, Tensor]:
    """``advantages = old_q - values`` and ``imitation = min(exp(beta advantages), largest)``.

    ``partial(sft, weight=Column("imitation"))`` is then the actor's loss. Normalise a learned reward before
    transitions are relabelled with it, or every weight stands at ``largest``.

    Args:
        old_q, values: ``[B, T]``, of the data's actions and states. beta: nats a reward unit. largest: of a weight.

    >>> found = exponential_weight(torch.tensor([[1.0, 9.0]]), torch.tensor([[1.0, 0.0]]), torch.ones(1, 2))
    >>> found["imitation"].tolist()
    [[1.0, 100.0]]
    """
    gap = torch.where(mask > 0, old_q - values, torch.zeros_like(values))
    weight = (beta * gap).exp().clamp(max=largest)
    return {"advantages": gap, "imitation": torch.where(mask > 0, weight, torch.zeros_like(weight))}
