"""Cross-entropy of verdicts on segments."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from rewardkit import testing
from rewardkit.objectives.base import Loss, objective
from rewardkit.objectives.segment import segment_ce


def test_by_hand():
    scores = torch.tensor([[[2.0, -1.0], [0.5, 3.0]]])
    labels = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
    asked = torch.tensor([[[1.0, 1.0], [0.0, 1.0]]])
    found = segment_ce(scores, labels, asked)

    def ce(z, y):
        p = 1 / (1 + math.exp(-z))
        return -math.log(p if y else 1 - p)

    assert found.value[0].tolist() == pytest.approx([ce(2, 1) + ce(-1, 0), ce(3, 0)])
    assert found.metrics["accuracy"][0].tolist() == [1.0, 0.0]


def test_no_gradient_where_nothing_was_asked():
    scores = torch.randn(2, 3, 2, requires_grad=True)
    asked = (torch.rand(2, 3, 2) > 0.5).float()
    segment_ce(scores, torch.ones(2, 3, 2), asked).value.sum().backward()
    assert torch.equal(scores.grad != 0, asked > 0)


def test_the_gradient_is_the_error_of_the_probability():
    scores = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    labels = (torch.rand(2, 3, 2) > 0.5).double()
    segment_ce(scores, labels, torch.ones(2, 3, 2)).value.sum().backward()
    torch.testing.assert_close(scores.grad, scores.detach().sigmoid() - labels)


@objective(per="token")
def on_marks(scores, wrong, judged) -> Loss:
    """Marks as whole numbers: they are data."""
    return segment_ce(scores, wrong, judged)


def batch(seed: int, **options: Any) -> dict[str, Any]:
    """Two kinds of verdicts at each position."""
    names, chance = testing.language_batch(seed, **options), torch.Generator().manual_seed(seed)
    shape = (*names["mask"].shape, 2)
    wrong, judged = (torch.randint(2, shape, generator=chance) for _ in range(2))
    scores = torch.randn(shape, generator=chance, dtype=torch.float64)
    return {"mask": names["mask"], "scores": scores, "wrong": wrong, "judged": judged * (names["mask"] > 0)[..., None]}


def test_it_passes_every_oracle():
    ran = testing.check(on_marks, batch)
    assert {"pure", "micro_batches", "padding", "row_order", "nan_outside", "all_masked", "gradients"} <= set(ran)
