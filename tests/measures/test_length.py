"""Length bias."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rewardkit.measures.length import best_rule, correlation, length_bias, length_only, similar


def test_correlation_is_pearsons() -> None:
    x, y = torch.randn(50), torch.randn(50)
    assert correlation(x, y) == pytest.approx(float(torch.corrcoef(torch.stack([x, y]))[0, 1]), abs=1e-6)
    assert math.isnan(correlation(torch.ones(5), y[:5]))
    assert math.isnan(correlation(x[:1], y[:1]))


def test_a_reward_that_is_length_has_bias_one_and_one_that_hates_it_minus_one() -> None:
    lengths = torch.randint(1, 100, (40, 2))
    score = lengths.float()
    assert length_bias(score[:, 0] - score[:, 1], lengths) == pytest.approx(1)
    assert length_bias(score[:, 1] - score[:, 0], lengths) == pytest.approx(-1)


def test_length_bias_is_the_correlation_of_differences_as_numpy_has_it() -> None:
    lengths, d = torch.randint(1, 100, (60, 2)), torch.randn(60)
    apart = (lengths[:, 0] - lengths[:, 1]).numpy()
    assert length_bias(d, lengths) == pytest.approx(np.corrcoef(d.numpy(), apart)[0, 1], abs=1e-6)


def test_a_constant_that_binary_fractions_cannot_hold_has_no_correlation() -> None:
    assert math.isnan(correlation(torch.full((9,), 0.1, dtype=torch.float64), torch.randn(9)))


def test_equal_lengths_count_half() -> None:
    lengths = torch.tensor([[5, 5], [3, 9]])
    assert length_only(lengths, "shorter")[0].value == 0.75
    assert length_only(lengths, "longer")[0].value == 0.25


def test_the_rule_is_the_better_one_unless_named() -> None:
    longer = torch.tensor([[9, 3], [8, 2], [1, 4]])
    assert best_rule(longer) == "longer"
    measure, rule = length_only(longer)
    assert (rule, measure.n) == ("longer", 3)
    assert measure.value == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="shorter"):
        length_only(longer, "shortest")  # type: ignore[arg-type]


def test_similar_length_is_symmetric() -> None:
    lengths = torch.tensor([[80, 100], [79, 100], [7, 7]])
    assert similar(lengths).tolist() == similar(lengths.flip(1)).tolist() == [True, False, True]
