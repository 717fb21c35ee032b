"""The figure of recovery after a reset."""

from __future__ import annotations

from rewardkit.papers.recipes.elastic_reset import _recovery


def test_recovery_counts_turns_until_the_reward_of_before_the_reset() -> None:
    # The first reset falls to 0 and is back at 3 after two turns; the second never falls.
    curve = [3.0, 3.0, 3.0, 3.0, 0.0, 2.0, 3.0, 4.0, 4.0, 4.0, 4.0, 4.0]
    assert _recovery(curve, 4) == (2 + 0) / 2


def test_a_reward_that_does_not_come_back_waits_the_whole_period() -> None:
    assert _recovery([3.0, 3.0, 3.0, 3.0, 0.0, 0.0, 0.0, 0.0], 4) == 4.0
