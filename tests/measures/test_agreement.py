"""Agreement."""

from __future__ import annotations

import math

import pytest

from rewardkit.measures.agreement import agreement, cohen_kappa, fleiss_kappa


def test_agreement_leaves_out_what_was_not_judged() -> None:
    measure = agreement([1, 2, None, 2], [1, 1, 2, None])
    assert (measure.value, measure.n, measure.invalid) == (0.5, 2, 2)


def test_cohens_own_table() -> None:
    # 2x2 table 20, 5 / 10, 15: observed 0.70, by chance 0.50
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert cohen_kappa(first, second) == pytest.approx(0.4)


def test_kappa_where_only_one_label_was_given_is_not_a_number() -> None:
    assert math.isnan(cohen_kappa([1, 1], [1, 1]))
    assert math.isnan(fleiss_kappa([[1, 1], [1, 1]]))
    assert math.isnan(fleiss_kappa([]))


def test_fleiss_own_example() -> None:
    # the table of the article's worked example as reprinted widely: 14 raters, 10 subjects, 5 categories, kappa 0.210
    counts = [
        (0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1),
        (7, 7, 0, 0, 0), (3, 2, 6, 3, 0), (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7),
    ]  # fmt: skip
    cases = [[k for k, n in enumerate(row) for _ in range(n)] for row in counts]
    assert fleiss_kappa(cases) == pytest.approx(0.210, abs=5e-4)


def test_annotators_must_judge_the_same_cases() -> None:
    with pytest.raises(ValueError, match="2 and 1 cases"):
        cohen_kappa([1, 2], [1])
    with pytest.raises(ValueError, match="same number"):
        fleiss_kappa([[1, 2], [1]])
