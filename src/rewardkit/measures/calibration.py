"""Calibration: whether what is held with probability p comes true a fraction p of the time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rewardkit.registry import entry


@dataclass(frozen=True)
class Bin:
    """One bin of a reliability curve: cases with a confidence in [low, high), their mean confidence and accuracy."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


def reliability(confidence: Tensor, correct: Tensor, *, bins: int = 10, low: float = 0.0) -> list[Bin]:
    """The reliability curve: equal-width bins of confidence, empty ones left out.

    Args:
        confidence: ``[N]``, in [``low``, 1]. correct: ``[N]``, 1 right, 0 wrong, one half for a tie.
        bins: how many between ``low`` and 1. low: the least confidence possible; 0.5 for a choice of two.

    Raises:
        ValueError: for a confidence outside [``low``, 1], or shapes that differ.

    >>> reliability(torch.tensor([0.1, 0.9]), torch.tensor([0.0, 1.0]), bins=2)[1].accuracy
    1.0
    """
    confidence_N, correct_N = confidence.detach().double(), correct.detach().double()
    if confidence_N.shape != correct_N.shape or confidence_N.ndim != 1:
        raise ValueError(
            f"reliability needs confidence and correct of one shape [N], not {tuple(confidence_N.shape)} "
            f"and {tuple(correct_N.shape)}"
        )
    slack = 1e-6  # a float32 sigmoid may stand just outside
    if len(confidence_N) and not bool(((confidence_N >= low - slack) & (confidence_N <= 1 + slack)).all()):
        raise ValueError(f"reliability needs confidences between {low} and 1")
    width = (1 - low) / bins
    which_N = ((confidence_N - low) / width).floor().long().clamp(0, bins - 1)
    curve = []
    for k in range(bins):
        inside = which_N == k
        if bool(inside.any()):
            curve.append(
                Bin(
                    low + k * width,
                    low + (k + 1) * width,
                    int(inside.sum()),
                    float(confidence_N[inside].mean()),
                    float(correct_N[inside].mean()),
                )
            )
    return curve


@entry(
    "measures:ece",
    aliases=("expected_calibration_error",),
    tags=("calibration",),
    source="Guo et al. (2017), On Calibration of Modern Neural Networks, eq. 3",
)
def ece(confidence: Tensor, correct: Tensor, *, bins: int = 10, low: float = 0.0) -> float:
    """Expected calibration error: ``sum_k n_k / N * |accuracy_k - confidence_k|`` over equal-width bins.

    Args:
        confidence: ``[N]``, in [``low``, 1]. correct: ``[N]``, 1 right, 0 wrong, one half for a tie.
        bins: how many between ``low`` and 1. low: the least confidence possible; 0.5 for a choice of two.

    Returns:
        The error in [0, 1]; NaN for no cases.

    >>> round(ece(torch.tensor([0.9, 0.9, 0.6, 0.6]), torch.tensor([1.0, 1.0, 1.0, 0.0])), 3)
    0.1
    """
    if not len(confidence):
        return float("nan")
    curve = reliability(confidence, correct, bins=bins, low=low)
    return sum(b.n * abs(b.accuracy - b.confidence) for b in curve) / len(confidence)


def pair_confidence(difference: Tensor) -> tuple[Tensor, Tensor]:
    """What Bradley-Terry holds of each pair: ``sigmoid(|d|)`` in [0.5, 1], and whether the chosen side got it.

    Args:
        difference: ``[P]``, score of the chosen less that of the rejected.

    Returns:
        confidence ``[P]`` and correct ``[P]`` (a tie is one half), as :func:`ece` and :func:`reliability` want them,
        with ``low=0.5``.

    >>> pair_confidence(torch.tensor([-1.0, 0.0, 2.0]))[1].tolist()
    [0.0, 0.5, 1.0]
    """
    correct_P = (difference > 0).double() + 0.5 * (difference == 0).double()
    return torch.sigmoid(difference.abs()), correct_P
