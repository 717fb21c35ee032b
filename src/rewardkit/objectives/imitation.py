"""Losses that imitate: maximum likelihood of what stands in the data."""

from __future__ import annotations

from torch import Tensor

from rewardkit.objectives.base import Loss, objective
from rewardkit.objectives.parts import Number, precise, spread
from rewardkit.registry import entry


@entry(
    "objectives.imitation:sft",
    aliases=(
        "reward_weighted_regression",
        "objectives.diffusion:denoising_mse",
        "objectives.diffusion:flow_rwr",
        "objectives.diffusion:reward_weighted",
    ),
    tags=("imitation", "offline"),
    source="maximum likelihood; with weight = exp(reward / beta): Peters & Schaal 2007, reward-weighted regression",
)
@objective(per="token")
def sft(logps: Tensor, *, weight: Number = 1.0) -> Loss:
    """Negative log-likelihood of each position, in nats: ``-weight * logps``.

    Args:
        logps: ``[B, T]``, live. weight: a number, ``[B]`` or ``[B, T]``; it is not part of the normaliser (a weight
            that should be belongs in the rollout's mask).

    Returns:
        ``[B, T]``.

    >>> import torch
    >>> sft(torch.tensor([[-1.0, -2.0]])).value.tolist()
    [[1.0, 2.0]]
    """
    logps = precise(logps)
    return Loss(-spread(weight, logps, "weight") * logps)
