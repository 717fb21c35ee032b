"""Slopes over the mini-batch's size."""

from __future__ import annotations

import pytest

from rewardkit.evals.batch_size_scaling import batch_size_scaling


def test_slope_is_by_quadrupling_and_paired_by_seed() -> None:
    found = batch_size_scaling({256: [10.0, 60.0], 1024: [7.0, 57.0], 4096: [4.0, 54.0]})
    assert found.value == pytest.approx(-3.0)
    assert found.n == 2
    assert found.ci == pytest.approx((-3.0, -3.0)), "seeds of unlike level agree on the slope"
    assert batch_size_scaling({1: [0.0], 16: [4.0]}).value == pytest.approx(2.0)
    for bad in ({256: [1.0]}, {256: [1.0], 1024: [1.0, 2.0]}):
        with pytest.raises(ValueError, match="two sizes or more"):
            batch_size_scaling(bad)
