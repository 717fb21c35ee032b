"""Annotators of best and worst."""

from __future__ import annotations

import pytest

from rewardkit.feedback.best_worst import SimulatedBestWorst


def test_answers_are_counted_inverted_and_noisy_as_told() -> None:
    values = [0.0, 3.0, 1.0, -2.0]
    ask = SimulatedBestWorst(float)
    assert ask(values) == (1, 3)
    assert ask(values) == (1, 3)
    assert ask.answers == 4
    assert SimulatedBestWorst(float, inverted=True)(values) == (3, 1)
    loud = SimulatedBestWorst(float, noise=10.0, seed=1)
    right = sum(loud(values)[0] == 1 for _ in range(400)) / 400
    assert 0.25 < right < 0.6, "errors make it better than chance, and no more"
    with pytest.raises(ValueError, match="show two or more"):
        ask([1.0])
