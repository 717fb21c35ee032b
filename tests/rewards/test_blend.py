"""The blended reward: at first the sum, paid by the step, and trained through the table alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rewardkit.objectives.path import path_gradient
from rewardkit.policies.control.pieces import Trajectory
from rewardkit.policies.path import PathValue
from rewardkit.rewards.blend import BilevelBlend
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Rollout, Sample

PRIMARY = torch.tensor([[0.0, 1.0], [2.0, 0.0]])
AUXILIARY = torch.tensor([[0.5, 0.0], [0.0, -1.0]])


def test_steps_are_paid_by_the_weighted_sum() -> None:
    blend = BilevelBlend(PRIMARY, AUXILIARY)
    with torch.no_grad():
        blend.weights[2] *= 2.0
        blend.weights[0, 1, 0] = 0.25
    walks = [
        Trajectory(np.array([0, 1, 1]), np.array([0, 1]), np.zeros(2)),
        Trajectory(np.array([1, 0]), np.array([0]), np.zeros(1)),
    ]
    scores = blend(Rollout([Sample("", w) for w in walks], torch.tensor([[1.0, 1.0], [1.0, 0.0]])))
    assert scores.dense["token"].tolist() == [[1.0, -2.0], [2.25, 0.0]]


def test_a_step_goes_through_the_table() -> None:
    blend = BilevelBlend(PRIMARY, AUXILIARY)
    value = PathValue(lambda table, samples: table.sum().reshape(1))
    found = Learner(blend).grads(Term(Rollout([Sample("")], torch.ones(1, 1)), path_gradient, want=(value,)))["weights"]
    torch.testing.assert_close(found, -torch.stack([torch.ones(2, 2), PRIMARY, AUXILIARY]))


def test_what_it_cannot_do_is_named() -> None:
    with pytest.raises(ValueError, match="alike"):
        BilevelBlend(PRIMARY, AUXILIARY[:1])
    with pytest.raises(KeyError, match="PathValue"):
        BilevelBlend(PRIMARY, AUXILIARY).evaluate(Rollout([Sample("")], torch.ones(1, 1)), ("scores",))
