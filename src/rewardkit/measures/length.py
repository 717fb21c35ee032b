"""Length: how much of a preference could be read off the number of characters alone."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

from rewardkit.measures.intervals import proportion
from rewardkit.registry import entry
from rewardkit.types import Measure

Rule = Literal["shorter", "longer"]


@entry("measures:correlation", aliases=("pearson",), tags=("correlation",), source="Pearson (1895)")
def correlation(x: Tensor, y: Tensor) -> float:
    """Pearson's correlation of two ``[N]`` tensors; NaN for fewer than two cases or where one of them is constant.

    >>> import torch
    >>> round(correlation(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 4.0, 6.0])), 6)
    1.0
    """
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"correlation needs two tensors of one shape [N], not {tuple(x.shape)} and {tuple(y.shape)}")
    x_N, y_N = x.detach().double(), y.detach().double()
    if len(x_N) < 2 or any(bool((v == v[0]).all()) for v in (x_N, y_N)):
        return math.nan
    x_N, y_N = x_N - x_N.mean(), y_N - y_N.mean()
    return float(x_N @ y_N) / float(x_N.norm() * y_N.norm())


@entry(
    "measures:length_bias",
    tags=("length", "bias"),
    source="Singhal et al. (2023), A Long Way to Go: Investigating Length Correlations in RLHF",
)
def length_bias(difference: Tensor, lengths: Tensor) -> float:
    """Correlation, over pairs, of the score difference with the length difference. 0 is no bias, 1 is only length.

    It is a correlation about the means: what a reward gives to the longer of *all* chosen sides alike does not show in
    it. Compare it with that of the labels' own reward, or with :func:`length_only`.

    Args:
        difference: ``[P]``, score of the chosen less that of the rejected.
        lengths: ``[P, 2]``, length of the chosen and of the rejected output, in characters, say.

    >>> import torch
    >>> round(length_bias(torch.tensor([1.0, -1.0, 2.0]), torch.tensor([[9, 5], [3, 7], [10, 2]])), 3)
    1.0
    """
    return correlation(difference, (lengths[:, 0] - lengths[:, 1]).to(difference.dtype))


@entry("measures:length_only", tags=("length", "bias"), source="the rule 'the shorter one wins' as a baseline")
def length_only(lengths: Tensor, rule: Rule | None = None) -> tuple[Measure, Rule]:
    """Accuracy of a rule that looks at length alone; equal lengths count one half.

    Args:
        lengths: ``[P, 2]``, length of the chosen and of the rejected output.
        rule: ``shorter`` or ``longer``; ``None`` takes the one that does better here, which flatters it a little:
            choose it on the training pairs where there are some (:func:`best_rule`).

    Returns:
        The accuracy with its Wilson interval, and the rule.

    >>> import torch
    >>> measure, rule = length_only(torch.tensor([[3, 9], [4, 8], [6, 5]]))
    >>> round(measure.value, 3), rule
    (0.667, 'shorter')
    """
    chosen = best_rule(lengths) if rule is None else rule
    if chosen not in ("shorter", "longer"):
        raise ValueError(f"length_only knows the rules 'shorter' and 'longer', not {rule!r}")
    won = _shorter_wins(lengths)
    return proportion(won if chosen == "shorter" else len(lengths) - won, len(lengths)), chosen


def best_rule(lengths: Tensor) -> Rule:
    """The length rule that is right more often on these pairs ``[P, 2]``."""
    return "shorter" if 2 * _shorter_wins(lengths) >= len(lengths) else "longer"


def similar(lengths: Tensor, *, within: float = 0.8) -> Tensor:
    """bool ``[P]``: pairs whose shorter output has at least ``within`` of the longer one's length.

    >>> import torch
    >>> similar(torch.tensor([[8, 10], [5, 10], [0, 0]])).tolist()
    [True, False, True]
    """
    return lengths.min(1).values >= within * lengths.max(1).values


def _shorter_wins(lengths: Tensor) -> float:
    if lengths.ndim != 2 or lengths.shape[1] != 2:
        raise ValueError(f"lengths must be [P, 2] (chosen, rejected), not {tuple(lengths.shape)}")
    shorter, equal = (lengths[:, 0] < lengths[:, 1]).sum(), (lengths[:, 0] == lengths[:, 1]).sum()
    return float(shorter) + 0.5 * float(equal)
