"""Reward models on tensors: what comparisons of points teach, and gradients through the points."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from rewardkit.data.rows import attach, comparison_rows
from rewardkit.objectives.reward import bradley_terry
from rewardkit.rewards.learned.tensor import TensorReward
from rewardkit.training.fit import fit
from rewardkit.training.learner import Learner
from rewardkit.types import Rollout
from rewardkit.worlds.gaussians import Gaussians

WORLD = Gaussians(2)


class Score(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 32), nn.SiLU(), nn.Linear(32, 1))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.net(torch.cat([x, condition], -1))


def fitted(seed: int = 0) -> TensorReward:
    torch.manual_seed(seed)
    reward = TensorReward(Score(), condition=WORLD.condition)
    drawn = WORLD.demonstrations(2000, seed=1)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(0)).tolist()
    # Prompts come in turn: two points of one prompt lie an even number apart.
    first = [drawn[2 * i + p] for i in order for p in (0, 1)]
    second = [drawn[2 * (i + 500) + p] for i in order for p in (0, 1)]
    rows = comparison_rows(WORLD.compare(first, second, seed=0))
    for _ in fit(
        Learner(reward, lr=5e-3), attach(reward.encode(rows.samples), rows), bradley_terry, epochs=5, batch=64
    ):
        pass
    return reward


def test_comparisons_teach_it_what_gold_prefers() -> None:
    reward, fresh = fitted(), WORLD.demonstrations(1000, seed=9)
    rollout = Rollout(fresh, torch.ones(1000, 1))
    found, gold = reward(rollout).outcome, WORLD.gold(rollout).outcome
    assert found is not None
    assert gold is not None
    for prompt in WORLD.prompts:
        mine = torch.tensor([s.prompt == prompt for s in fresh])
        assert torch.corrcoef(torch.stack([found[mine], gold[mine]]))[0, 1] > 0.8


def test_scores_carry_no_gradient_and_the_function_does() -> None:
    reward = TensorReward(Score(), condition=WORLD.condition)
    rollout = Rollout(WORLD.demonstrations(3, seed=0), torch.ones(3, 1))
    scores = reward(rollout)
    assert scores.outcome is not None
    assert not scores.outcome.requires_grad
    x = torch.zeros(3, 2, requires_grad=True)
    reward.of(x, torch.zeros(3, 2)).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    with pytest.raises(KeyError, match="'scores' only"):
        reward.evaluate(reward.encode(rollout.samples), ("logps",))
