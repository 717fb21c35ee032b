"""Verdicts on segments: the loss of a process reward that reads them from a reply's tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from rewardkit.objectives.base import Loss, objective
from rewardkit.objectives.parts import logistic, precise, same_shape
from rewardkit.registry import entry


@entry("objectives.reward:segment_ce", aliases=("process_ce",), tags=("reward-model", "process"))
@objective(per="token")
def segment_ce(scores: Tensor, labels: Tensor, asked: Tensor) -> Loss:
    """Cross-entropy of each verdict on a segment, summed over kinds of error.

    Args:
        scores: ``[B, T, K]``, logits of an error. labels, asked: ``[B, T, K]``, whether a segment with an error ends at
            a token, and whether any does; see :class:`rewardkit.rewards.learned.process.ProcessReward`.

    Returns:
        ``[B, T]``. Metric ``accuracy``: mean over the verdicts asked for at a position.

    >>> loss = segment_ce(torch.zeros(1, 1, 2), torch.ones(1, 1, 2), torch.tensor([[[1.0, 0.0]]]))
    >>> round(loss.value.item(), 4)
    0.6931
    """
    same_shape("segment_ce", scores=scores, labels=labels, asked=asked)
    # What nothing was asked of may be anything, padding among it: it must not reach the gradient as 0 * NaN.
    scores = torch.where(asked > 0, precise(scores), 0.0)
    labels, asked = labels.to(scores.dtype), asked.to(scores.dtype)
    right = ((scores.detach() > 0) == (labels > 0.5)).to(scores.dtype)
    accuracy = (right * asked).sum(-1) / asked.sum(-1).clamp(min=1)
    return Loss((logistic(scores, 1 - labels) * asked).sum(-1), {"accuracy": accuracy})
