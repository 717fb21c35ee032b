"""Agreement between annotators, by chance and beyond it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence

from rewardkit.measures.intervals import proportion
from rewardkit.registry import entry
from rewardkit.types import Measure

Label = Hashable


@entry("measures:agreement", aliases=("evals:human_agreement", "evals:label_agreement"), tags=("agreement",))
def agreement(first: Sequence[Label | None], second: Sequence[Label | None]) -> Measure:
    """Share of cases on which two annotators give one label, with its Wilson interval.

    Args:
        first, second: one label a case; ``None`` where one of them gave none: left out and counted as ``invalid``.

    >>> agreement(["a", "b", "tie", None], ["a", "a", "tie", "b"]).value
    0.6666666666666666
    """
    both = _both(first, second)
    return proportion(sum(a == b for a, b in both), len(both), invalid=len(first) - len(both))


@entry(
    "measures:cohen_kappa",
    tags=("agreement",),
    source="Cohen (1960), A coefficient of agreement for nominal scales",
)
def cohen_kappa(first: Sequence[Label | None], second: Sequence[Label | None]) -> float:
    """Agreement of two annotators beyond chance: ``(p_o - p_e) / (1 - p_e)``. 1 is full, 0 is chance.

    Args:
        first, second: one label a case; cases that one of them left out (``None``) take no part.

    Returns:
        Kappa; NaN for no cases, or where both gave one and the same label throughout (chance agreement is then 1).

    >>> round(cohen_kappa([1, 1, 0, 0], [1, 0, 0, 0]), 3)
    0.5
    """
    both = _both(first, second)
    if not both:
        return math.nan
    observed = sum(a == b for a, b in both) / len(both)
    left, right = Counter(a for a, _ in both), Counter(b for _, b in both)
    chance = sum(left[k] * right[k] for k in left) / len(both) ** 2
    return (observed - chance) / (1 - chance) if chance < 1 else math.nan


@entry(
    "measures:fleiss_kappa",
    tags=("agreement",),
    source="Fleiss (1971), Measuring nominal scale agreement among many raters",
)
def fleiss_kappa(cases: Sequence[Sequence[Label]]) -> float:
    """Agreement of any number of annotators beyond chance.

    Args:
        cases: the labels of each case; every case must have the same number of them, at least two.

    Returns:
        Kappa; NaN for no cases, or where only one label was ever given.

    Raises:
        ValueError: where the number of labels differs, or is below two.

    >>> round(fleiss_kappa([["a", "a", "a"], ["b", "b", "b"], ["a", "a", "b"]]), 3)
    0.55
    """
    if not cases:
        return math.nan
    raters = len(cases[0])
    if raters < 2 or any(len(c) != raters for c in cases):
        raise ValueError("fleiss_kappa needs the same number of labels, at least two, for every case")
    counts = [Counter(c) for c in cases]
    observed = sum((sum(v * v for v in c.values()) - raters) / (raters * (raters - 1)) for c in counts) / len(cases)
    total = sum(counts, Counter())
    chance = sum((v / (raters * len(cases))) ** 2 for v in total.values())
    return (observed - chance) / (1 - chance) if chance < 1 else math.nan


def _both(first: Sequence[Label | None], second: Sequence[Label | None]) -> list[tuple[Label, Label]]:
    if len(first) != len(second):
        raise ValueError(f"the annotators judged {len(first)} and {len(second)} cases; they must judge the same")
    return [(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None]
