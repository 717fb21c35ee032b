"""Optimisers and schedules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rewardkit.training.optim import make_optimizer, schedule_factor


def test_decay_touches_matrices_only() -> None:
    layer = nn.Linear(2, 2)
    optimizer = make_optimizer(dict(layer.named_parameters()), "adamw", 0.1, 0.5)
    decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decay == {id(layer.weight): 0.5, id(layer.bias): 0.0}
    with pytest.raises(ValueError, match="'sgd'"):
        make_optimizer(dict(layer.named_parameters()), "sgd", 0.1, 0.0)


def test_cosine_falls_from_one_to_zero_and_stays() -> None:
    factors = [schedule_factor(s, "cosine", 0.1, 100) for s in range(120)]
    assert factors[9] == 1.0
    assert factors[:10] == sorted(factors[:10])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[100] == factors[119] == pytest.approx(0.0, abs=1e-12)
    assert factors[55] == pytest.approx(0.5)


def test_same_as_torch_for_the_linear_schedule() -> None:
    p = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([p], lr=1.0)
    theirs = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1e-9, total_iters=10)
    for step in range(10):
        assert schedule_factor(step, "linear", 0, 10) == pytest.approx(theirs.get_last_lr()[0], abs=1e-6)
        optimizer.step()
        theirs.step()


def test_unknown_schedule_and_missing_total_are_named() -> None:
    with pytest.raises(ValueError, match="'step'"):
        schedule_factor(0, "step", 0, 10)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs total_steps"):
        schedule_factor(0, "constant", 0.1, None)
