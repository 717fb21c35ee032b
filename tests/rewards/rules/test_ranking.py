"""Kendall's tau of written grades."""

from __future__ import annotations

import itertools

import pytest
from scipy.stats import kendalltau

from rewardkit.rewards.rules.ranking import kendall


@pytest.mark.parametrize("grades", list(itertools.permutations([1.0, 3.0, 5.0, 9.0]))[::5])
def test_it_is_scipys_where_nothing_is_equal(grades):
    rank = [2, 0, 3, 1]
    assert kendall(grades, rank) == pytest.approx(kendalltau(grades, [-r for r in rank]).statistic)


def test_equal_grades_are_worth_nothing_and_tied_items_do_not_count():
    assert kendall([5, 5, 5], [0, 1, 2]) == 0.0
    assert kendall([5, 1, 9], [0, 1, 1]) == 0.0
    assert kendall([1, 2], [0, 0]) == 0.0
