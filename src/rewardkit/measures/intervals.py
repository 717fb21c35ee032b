"""Intervals: how far a figure would move if the cases were drawn again."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from rewardkit.registry import entry
from rewardkit.types import Measure


@entry(
    "measures:wilson",
    tags=("interval",),
    source="Wilson (1927), Probable inference, the law of succession, and statistical inference",
)
def wilson(successes: float, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion; it stays inside [0, 1] and is not empty at 0 or ``n`` successes.

    Args:
        successes: out of ``n``; a tie may count one half. n: cases. level: coverage.

    Returns:
        (low, high); (0, 1) for no cases.

    Raises:
        ValueError: unless ``0 <= successes <= n`` and ``0 < level < 1``.

    >>> low, high = wilson(8, 10)
    >>> round(low, 4), round(high, 4)
    (0.4902, 0.9433)
    """
    if not 0 <= successes <= n:
        raise ValueError(f"wilson needs 0 <= successes <= n, not {successes} of {n}")
    if n == 0:
        return 0.0, 1.0
    z = _normal_quantile(level)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def proportion(successes: float, n: int, *, invalid: int = 0) -> Measure:
    """A proportion with its Wilson 95% interval; NaN, and the interval (0, 1), where there are no cases.

    >>> proportion(3, 4).value
    0.75
    """
    return Measure(successes / n if n else math.nan, n, wilson(successes, n), invalid)


@entry("measures:mean_interval", tags=("interval",), source="Student (1908), The probable error of a mean")
def mean_interval(values: Sequence[float], *, level: float = 0.95) -> tuple[float, float] | None:
    """Student's t interval of a mean, for seeds and other repeated runs; ``None`` for fewer than two values.

    Args:
        values: one number a run. level: coverage.

    >>> low, high = mean_interval([0.58, 0.60, 0.62])
    >>> round(low, 4), round(high, 4)
    (0.5503, 0.6497)
    """
    if len(values) < 2:
        return None
    from scipy.stats import t

    x = np.asarray(values, dtype=float)
    half = float(t.ppf(0.5 + level / 2, len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x)))
    return float(x.mean()) - half, float(x.mean()) + half


def average(values: Sequence[float], *, invalid: int = 0) -> Measure:
    """The mean of repeated runs with Student's 95% interval; NaN where there are none.

    >>> average([1.0, 3.0]).value
    2.0
    """
    return Measure(float(np.mean(values)) if len(values) else math.nan, len(values), mean_interval(values), invalid)


@entry("measures:bootstrap", tags=("interval",), source="Efron (1979), Bootstrap methods: the percentile interval")
def bootstrap(
    values: Sequence[float], *, seed: int = 0, draws: int = 2000, level: float = 0.95
) -> tuple[float, float] | None:
    """Percentile interval of a mean over cases drawn again with replacement.

    Where several comparisons share a prompt, give one mean a prompt: the prompts are what is drawn.

    Args:
        values: one number a case. seed: of the draws. draws: how many. level: coverage.

    Returns:
        (low, high), within the range of ``values``; ``None`` for no cases.

    >>> low, high = bootstrap([0.0, 1.0] * 50)
    >>> 0.35 < low < 0.45 and 0.55 < high < 0.65
    True
    """
    if not len(values):
        return None
    x = np.asarray(values, dtype=float)
    generator = np.random.default_rng(seed)
    means = np.array([x[generator.integers(0, len(x), len(x))].mean() for _ in range(draws)])
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


def _normal_quantile(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level is a coverage between 0 and 1, not {level}")
    from scipy.stats import norm

    return float(norm.ppf(0.5 + level / 2))
