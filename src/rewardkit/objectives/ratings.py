"""Losses of a score against a number that somebody gave: a rating, an assay."""

from __future__ import annotations

from torch import Tensor

from rewardkit.objectives.base import Loss, objective
from rewardkit.objectives.parts import Number, precise, same_shape, spread
from rewardkit.registry import entry


@entry("objectives.reward:squared_error", aliases=("mse", "score_regression"), tags=("reward-model", "rating"))
@objective(per="sample")
def squared_error(scores: Tensor, rating: Tensor, *, weight: Number = 1.0) -> Loss:
    """``weight * (scores - rating) ** 2``.

    Args:
        scores: ``[B]``, live. rating: ``[B]``, as :func:`rewardkit.data.rows.rated_rows` gives it, on the scale that
            the scores shall have. weight: a number or ``[B]``.

    Returns:
        ``[B]``; metric ``error``, the difference without sign.

    >>> import torch
    >>> squared_error(torch.tensor([1.0, 3.0]), torch.tensor([1.5, 1.0])).value.tolist()
    [0.25, 4.0]
    """
    same_shape("squared_error", scores=scores, rating=rating)
    apart = precise(scores) - precise(rating)
    return Loss(spread(weight, apart, "weight") * apart.square(), {"error": apart.detach().abs()})
