"""Reward programs pay what their expression says of each step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rewardkit.policies.control.pieces import Trajectory
from rewardkit.rewards.learned.program import ProgramReward
from rewardkit.types import Rollout, Sample

FEATURES = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[0.5, 0.5], [0.0, 0.0]]])


def test_steps_are_paid_by_state_and_action_and_padding_is_not() -> None:
    reward = ProgramReward("3 * x - y + 1", FEATURES, ["x", "y"])
    paths = [
        Trajectory(np.array([0, 1, 1]), np.array([1, 0]), np.zeros(2)),
        Trajectory(np.array([0, 1]), np.array([0]), np.zeros(1)),
    ]
    found = reward(Rollout([Sample(0, p) for p in paths], torch.tensor([[1.0, 1], [1, 0]])))
    assert found.dense["token"].tolist() == [[-1.0, 2.0], [4.0, 0.0]]
    assert found.before["return"].outcome.tolist() == [1.0, 4.0]
    torch.testing.assert_close(sum(reward.components.values()), reward.table)


def test_what_cannot_be_read_is_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match="'z' at 4 is neither a feature"):
        ProgramReward("1 + z", FEATURES, ["x", "y"])
    with pytest.raises(ValueError, match="2 features have 1 names"):
        ProgramReward("x", FEATURES, ["x"])
