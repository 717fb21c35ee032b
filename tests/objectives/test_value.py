"""The critic's loss, by hand."""

from __future__ import annotations

import pytest
import torch

from rewardkit.objectives.base import mean
from rewardkit.objectives.value import value_loss


def test_half_the_squared_error() -> None:
    """R12: the factor 0.5 is applied once."""
    loss = value_loss(torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 1.0]]))
    assert loss.value.tolist() == [[2.0, 0.0]]
    assert loss.metrics["error"].tolist() == [[2.0, 0.0]]


@pytest.mark.parametrize(
    ("value", "old", "target", "loss", "slope"),
    [
        (1.1, 1.0, 2.0, 0.405, -0.9),  # within the clip
        (1.9, 1.0, 2.0, 0.32, 0.0),  # moved too far towards the target: held at 1.2, no gradient
        (0.5, 1.0, 2.0, 1.125, -1.5),  # moved away: the larger, unclipped error
    ],
)
def test_the_larger_of_both_errors_by_hand(value: float, old: float, target: float, loss: float, slope: float) -> None:
    values = torch.tensor([[value]], dtype=torch.float64, requires_grad=True)
    found = value_loss(values, torch.tensor([[target]]), torch.tensor([[old]]), clip=0.2)
    assert found.value.item() == pytest.approx(loss, rel=1e-6)
    found.value.sum().backward()
    assert values.grad is not None
    assert values.grad.item() == pytest.approx(slope, abs=1e-6)
    assert found.metrics["clip"].item() == float(slope == 0)


def test_padding_is_in_neither_sum_nor_denominator() -> None:
    """R2, R5: the mean is over trained positions."""
    values, mask = torch.tensor([[1.0, 99.0], [3.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    loss = value_loss(values, torch.zeros(2, 2), None, mask)
    assert mean(loss, mask, value_loss).item() == pytest.approx((0.5 + 4.5 + 0.5) / 3)


def test_returns_and_old_values_are_never_trained() -> None:
    values, returns, old = (torch.randn(2, 3, requires_grad=True) for _ in range(3))
    value_loss(values, returns, old, clip=0.1).value.sum().backward()
    assert returns.grad is None
    assert old.grad is None


def test_clip_without_old_values_says_so() -> None:
    with pytest.raises(ValueError, match="clip needs old_values"):
        value_loss(torch.zeros(1, 1), torch.zeros(1, 1), clip=0.2)
