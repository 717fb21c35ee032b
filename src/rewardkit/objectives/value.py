"""Losses of critics."""

from __future__ import annotations

import torch
from torch import Tensor

from rewardkit.objectives.base import Loss, objective
from rewardkit.objectives.parts import inside, precise, same_shape
from rewardkit.registry import entry


@entry(
    "objectives.value:value_loss",
    aliases=("objectives.policy:value_loss",),
    tags=("critic",),
    source="Schulman et al. 2017, arXiv 1707.06347; clip: Schulman et al. 2016 as in OpenAI Baselines' PPO2",
)
@objective(per="token")
def value_loss(
    values: Tensor,
    returns: Tensor,
    old_values: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    clip: float | None = None,
) -> Loss:
    """Half the squared error of the critic, or the larger of it and that of a value held near the old one.

    ``0.5 * (values - returns)**2``; with ``clip``, ``v' = old_values + clamp(values - old_values, -clip, clip)`` and
    ``0.5 * max((values - returns)**2, (v' - returns)**2)``. (Stable-Baselines3 has no factor 0.5 and multiplies by its
    ``vf_coef`` of 0.5; with a clip it takes ``v'`` alone.)

    Args:
        values: ``[B, T]``, live. returns: ``[B, T]``, constants. old_values: ``[B, T]``, constants; needed by ``clip``.
        mask: ``[B, T]``: nothing outside it reaches a value or a gradient. clip: in units of the return.

    Returns:
        ``[B, T]``; metrics ``clip`` (fraction held) and ``error`` (values - returns).

    Raises:
        ValueError: if shapes differ or ``clip`` comes without ``old_values``.

    >>> value_loss(torch.tensor([[1.0]]), torch.tensor([[3.0]])).value.item()
    2.0
    >>> value_loss(torch.tensor([[2.0]]), torch.tensor([[2.0]]), torch.tensor([[0.0]]), clip=0.5).value.item()
    1.125
    """
    same_shape("value_loss", values=values, returns=returns, old_values=old_values, mask=mask)
    values, returns = inside(precise(values), mask), inside(precise(returns.detach()), mask)
    error_BT = values - returns
    square, held = error_BT.square(), torch.zeros_like(error_BT)
    if clip is not None:
        if old_values is None:
            raise ValueError("value_loss: clip needs old_values")
        old_values = inside(precise(old_values.detach()), mask)
        near_BT = old_values + (values - old_values).clamp(-clip, clip)
        near_square = (near_BT - returns).square()
        held = (near_square > square).to(square.dtype)
        square = torch.maximum(square, near_square)
    return Loss(0.5 * square, {"clip": held, "error": error_BT.detach()})
