"""Intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest, sem, t

from rewardkit.measures.intervals import average, bootstrap, mean_interval, proportion, wilson


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (195, 325)])
def test_wilson_is_scipys(k: int, n: int) -> None:
    theirs = binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert wilson(k, n) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_wilson_takes_half_successes_and_refuses_too_many() -> None:
    assert wilson(4, 10)[0] < wilson(4.5, 10)[0] < wilson(5, 10)[0]
    with pytest.raises(ValueError, match="0 <= successes <= n"):
        wilson(11, 10)


def test_no_cases_know_nothing() -> None:
    measure = proportion(0, 0, invalid=3)
    assert math.isnan(measure.value)
    assert (measure.ci, measure.n, measure.invalid) == ((0.0, 1.0), 0, 3)
    assert bootstrap([]) is None


def test_mean_interval_is_students() -> None:
    x = [0.57, 0.61, 0.60, 0.66]
    assert mean_interval(x) == pytest.approx(t.interval(0.95, 3, np.mean(x), sem(x)))
    assert mean_interval([0.5]) is None
    assert average(x).value == pytest.approx(0.61)


def test_bootstrap_is_seeded_and_close_to_the_normal_interval() -> None:
    x = np.random.default_rng(1).normal(size=400)
    low, high = bootstrap(x.tolist(), seed=3) or (0, 0)
    assert (low, high) == bootstrap(x.tolist(), seed=3)
    assert (low, high) != bootstrap(x.tolist(), seed=4)
    assert (high - low) == pytest.approx(2 * 1.96 * x.std() / 20, rel=0.1)
