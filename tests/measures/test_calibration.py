"""Calibration."""

from __future__ import annotations

import math

import pytest
import torch

from rewardkit.measures.calibration import ece, pair_confidence, reliability


def test_perfect_calibration_has_no_error_and_full_overconfidence_has_its_gap() -> None:
    confidence = torch.tensor([0.8] * 10)
    assert ece(confidence, torch.tensor([1.0] * 8 + [0.0] * 2)) == pytest.approx(0, abs=1e-6)
    assert ece(torch.ones(4), torch.zeros(4)) == 1.0


def test_ece_weights_bins_by_their_cases() -> None:
    confidence = torch.tensor([0.95, 0.95, 0.95, 0.55])
    correct = torch.tensor([1.0, 1.0, 0.0, 1.0])
    assert ece(confidence, correct, low=0.5) == pytest.approx(0.75 * abs(2 / 3 - 0.95) + 0.25 * 0.45, abs=1e-6)


def test_certain_cases_fall_into_the_last_bin() -> None:
    curve = reliability(torch.ones(3), torch.ones(3), bins=5)
    assert [(b.low, b.high, b.n) for b in curve] == [(0.8, 1.0, 3)]


def test_swapping_the_sides_of_a_pair_swaps_right_and_wrong_only() -> None:
    d = torch.tensor([0.3, -2.0, 0.0])
    confidence, correct = pair_confidence(d)
    mirrored, wrong = pair_confidence(-d)
    torch.testing.assert_close(confidence, mirrored)
    assert (correct + wrong).tolist() == [1.0, 1.0, 1.0]
    assert confidence[2] == 0.5


def test_bad_confidences_are_refused() -> None:
    with pytest.raises(ValueError, match="confidences between"):
        ece(torch.tensor([0.3]), torch.tensor([1.0]), low=0.5)
    with pytest.raises(ValueError, match="one shape"):
        reliability(torch.ones(2), torch.ones(3))


def test_no_cases_have_no_error() -> None:
    assert math.isnan(ece(torch.zeros(0), torch.zeros(0)))


def test_thousands_of_pairs_in_half_precision_are_counted_exactly() -> None:
    assert pair_confidence(torch.ones(3001, dtype=torch.bfloat16))[1].sum() == 3001
