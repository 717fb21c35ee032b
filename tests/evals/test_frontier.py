"""Frontiers compare methods at equal KL; curves say where gold peaked."""

from __future__ import annotations

import pytest

from rewardkit.evals.frontier import kl_reward_frontier, overoptimization_curve, reward_at_kl


def test_dominated_points_are_not_on_the_frontier():
    assert kl_reward_frontier([2.0, 1.0, 1.0], [1.0, 1.0, 0.5]) == [(1.0, 1.0)]


def test_reward_at_a_kl_is_read_off_the_mixture_with_the_start():
    assert reward_at_kl([2.0], [1.0], 1.0, start=0.0) == 0.5


def test_moving_further_for_less_reward_costs_nothing_at_that_kl():
    assert reward_at_kl([1.0, 3.0], [2.0, 0.0], 3.0, start=0.0) == 2.0


def test_a_kl_that_no_run_reached_is_refused():
    with pytest.raises(ValueError, match="largest is 2"):
        reward_at_kl([1.0, 2.0], [1.0, 1.0], 2.5, start=0.0)


def test_a_curve_that_still_rises_has_no_peak_within_the_run():
    found = overoptimization_curve([0, 1, 2], [0, 1, 2], [0, 1, 2])
    assert not found.peaked
    assert found.gold_peak == found.gold_end == 2


def test_a_fall_within_the_tolerance_is_noise():
    assert not overoptimization_curve([0, 1], [0, 1], [1.0, 0.95], tolerance=0.1).peaked
    assert overoptimization_curve([0, 1], [0, 1], [1.0, 0.5], tolerance=0.1).peaked


def test_a_peak_located_by_other_draws_is_read_without_their_luck():
    found = overoptimization_curve([0, 1, 2, 3], [0, 1, 2, 3], [0, 0.4, 0.9, 0.3], located_by=[0, 1, 0.5, 0.2])
    assert (found.kl_at_peak, found.gold_peak, found.proxy_after_peak) == (1.0, 0.4, 2.0)
    assert found.drop == pytest.approx(0.1)
    with pytest.raises(ValueError, match="2, 2, 2, 1"):
        overoptimization_curve([0, 1], [0, 1], [0, 1], located_by=[0])


def test_lists_of_different_length_are_refused():
    with pytest.raises(ValueError, match="equally many"):
        overoptimization_curve([0, 1], [0], [0, 1])
