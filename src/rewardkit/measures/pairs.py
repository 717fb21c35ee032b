"""What the scores of pairs say: accuracy, calibration, and the share that length alone explains."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rewardkit.measures.calibration import Bin, ece, pair_confidence, reliability
from rewardkit.measures.intervals import proportion
from rewardkit.measures.length import Rule, length_bias, length_only, similar
from rewardkit.types import Measure


def wins(new: Tensor, old: Tensor) -> Tensor:
    """1 where ``new`` is larger, 0.5 where equal, 0 where smaller.

    >>> wins(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 2.0, 2.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    return (new > old).float() + 0.5 * (new == old).float()


@dataclass(frozen=True, eq=False)
class Compared:
    """Pairs with the scores of their sides.

    Args:
        difference: ``[P]``, score of the better less that of the worse. lengths: ``[P, 2]``, characters of both.
        unscored: pairs of which a side could not be scored; they are in neither tensor.
        undecided: pairs that the annotator called equal; they are in neither tensor.
    """

    difference: Tensor
    lengths: Tensor
    unscored: int = 0
    undecided: int = 0


@dataclass(frozen=True)
class PairReport:
    """What :func:`summarise` found.

    Args:
        accuracy: share of pairs whose better side scored higher, equal scores counting one half; Wilson's 95%
            interval; ``invalid`` are the unscored pairs.
        ties: pairs with equal scores. undecided: pairs that the annotator called equal, left out.
        ece: calibration error of ``sigmoid(score difference)``; it supposes scores in Bradley-Terry's unit.
        length_bias: correlation of score difference with length difference.
        length_only: accuracy of the rule ``length_rule`` alone.
        similar_length: accuracy on pairs whose shorter side has at least 0.8 of the longer one's characters.
        curve: the reliability curve, from confidence 0.5 up.
    """

    accuracy: Measure
    ties: int
    undecided: int
    ece: float
    length_bias: float
    length_only: Measure
    length_rule: Rule
    similar_length: Measure
    curve: tuple[Bin, ...]

    def flat(self) -> dict[str, Any]:
        """As JSON: numbers by name, ``None`` for what is not defined."""
        low, high = self.accuracy.ci or (math.nan, math.nan)
        similar_low, similar_high = self.similar_length.ci or (math.nan, math.nan)
        found = {
            "accuracy": self.accuracy.value,
            "accuracy_low": low,
            "accuracy_high": high,
            "n": self.accuracy.n,
            "ties": self.ties,
            "unscored": self.accuracy.invalid,
            "undecided": self.undecided,
            "ece": self.ece,
            "length_bias": self.length_bias,
            "length_only": self.length_only.value,
            "length_rule": self.length_rule,
            "similar_length_accuracy": self.similar_length.value,
            "similar_length_low": similar_low,
            "similar_length_high": similar_high,
            "similar_length_n": self.similar_length.n,
            "calibration": [vars(b) for b in self.curve],
        }
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in found.items()}

    def __str__(self) -> str:
        low, high = self.accuracy.ci or (math.nan, math.nan)
        lines = [
            f"accuracy              {self.accuracy.value:.3f}  [{low:.3f}, {high:.3f}]  on {self.accuracy.n} pairs",
            f"  similar length      {self.similar_length.value:.3f}  on {self.similar_length.n} pairs",
            f"  length alone        {self.length_only.value:.3f}  ('the {self.length_rule} one wins')",
            f"length bias           {self.length_bias:+.3f}  (correlation of score and length differences)",
            f"calibration error     {self.ece:.3f}",
        ]
        left_out = [(self.ties, "ties in score"), (self.accuracy.invalid, "unscored"), (self.undecided, "undecided")]
        if any(n for n, _ in left_out):
            lines.append(", ".join(f"{n} {what}" for n, what in left_out if n))
        return "\n".join(lines)


def summarise(compared: Compared, *, rule: Rule | None = None) -> PairReport:
    """The report of scored pairs.

    Args:
        compared: of :func:`rewardkit.rewards.scoring.compare`.
        rule: the length rule, chosen elsewhere; ``None`` takes the better one here.
    """
    difference, lengths = compared.difference, compared.lengths
    confidence, correct = pair_confidence(difference)
    alike = similar(lengths) if len(lengths) else torch.zeros(0, dtype=torch.bool)
    only, chosen = length_only(lengths, rule)
    return PairReport(
        accuracy=proportion(float(correct.sum()), len(correct), invalid=compared.unscored),
        ties=int((difference == 0).sum()),
        undecided=compared.undecided,
        ece=ece(confidence, correct, low=0.5),
        length_bias=length_bias(difference, lengths),
        length_only=only,
        length_rule=chosen,
        similar_length=proportion(float(correct[alike].sum()), int(alike.sum())),
        curve=tuple(reliability(confidence, correct, low=0.5)),
    )
