"""The squared error of a score."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rewardkit import testing
from rewardkit.objectives.base import Loss
from rewardkit.objectives.path import discrete_path_kl, path_gradient
from rewardkit.objectives.ratings import squared_error


def test_by_hand_with_weights_and_gradient() -> None:
    scores = torch.tensor([1.0, 3.0], requires_grad=True)
    loss: Loss = squared_error(scores, torch.tensor([2.0, 1.0]), weight=torch.tensor([1.0, 0.5]))
    assert loss.value.tolist() == [1.0, 2.0]
    assert loss.metrics["error"].tolist() == [1.0, 2.0]
    loss.value.sum().backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [-2.0, 2.0]
    with pytest.raises(ValueError, match="squared_error"):
        squared_error(scores, torch.zeros(1))


def test_the_losses_of_paths_are_the_values_with_their_sign() -> None:
    value = torch.tensor([0.5, 2.0], requires_grad=True)
    path_gradient(value).value.sum().backward()
    assert value.grad is not None
    assert value.grad.tolist() == [-1.0, -1.0]
    gaps = torch.rand(2, 3, requires_grad=True)
    assert torch.equal(discrete_path_kl(gaps).value, gaps)


def batch(seed: int, **options: Any) -> dict[str, Any]:
    """The usual batch, its outcomes read as ratings."""
    names = testing.language_batch(seed, **options)
    return names | {"rating": names["outcome"]}


def test_it_passes_the_oracles() -> None:
    ran = testing.check(squared_error, batch)
    assert {"pure", "row_order", "precision"} <= set(ran)
