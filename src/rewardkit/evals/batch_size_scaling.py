"""Does what is learned from the same samples get better or worse as an update takes more of them at once?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from rewardkit.measures.intervals import mean_interval
from rewardkit.registry import entry
from rewardkit.types import Measure


@entry("evals:batch_size_scaling", tags=("control",), source="Jaeger et al. 2025, CaRL, arXiv:2504.17838, figure 3")
def batch_size_scaling(figures: Mapping[int, Sequence[float]]) -> Measure:
    """The slope of a figure over the mini-batch's size, in its units a quadrupling; below 0: larger ones do worse.

    Args:
        figures: size of the mini-batch -> the figure of each seed, all sizes with the same seeds in the same order.

    Returns:
        the mean of the seeds' least-squares slopes, with its 95% t-interval.

    Raises:
        ValueError: for fewer than two sizes, or sizes with different numbers of seeds.

    >>> batch_size_scaling({256: [80.0, 82.0], 1024: [70.0, 72.0], 4096: [60.0, 62.0]}).value
    -10.0
    """
    counts = {len(v) for v in figures.values()}
    if len(figures) < 2 or len(counts) != 1:
        raise ValueError(f"batch_size_scaling compares two sizes or more, with as many seeds each: {dict(figures)}")
    steps = np.array([math.log(size, 4) for size in figures])
    steps = steps - steps.mean()
    each = (steps @ np.array([list(v) for v in figures.values()], dtype=float)) / (steps @ steps)
    return Measure(round(float(each.mean()), 9), n=len(each), ci=mean_interval(each.tolist()))
