"""Several dimensions, one network: each comparison teaches the head that it was about."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rewardkit.data.rows import attach, comparison_rows
from rewardkit.objectives.reward import bradley_terry
from rewardkit.rewards.learned.heads import HeadsReward
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Judgement, Rollout, Sample


class Net(nn.Module):
    def __init__(self, heads: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(2, heads)

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        return self.net(x)


def reward() -> HeadsReward:
    return HeadsReward(Net(), {"quality": 1.0, "motion": 0.5}, condition=lambda prompt: torch.ones(1))


def test_comparisons_of_two_dimensions_teach_two_heads_at_once() -> None:
    own = reward()
    a, b = Sample("p", torch.tensor([1.0, -1.0])), Sample("p", torch.tensor([-1.0, 1.0]))
    judged = [
        Judgement((a, b), rank=(0, 1), aspect="quality"),
        Judgement((a, b), rank=(1, 0), aspect="motion"),
    ]
    rows, learner = comparison_rows(judged), Learner(own, lr=0.1)
    aspects = [str(j.aspect) for j in judged for _ in j.items]
    for _ in range(60):
        learner.step(Term(attach(own.encode(rows.samples, aspects), rows), bradley_terry))
    scores = own(Rollout([a, b], torch.ones(2, 1)))
    assert scores.parts is not None
    quality, motion = scores.parts["quality"].outcome, scores.parts["motion"].outcome
    assert quality is not None
    assert motion is not None
    assert quality[0] > quality[1] + 1
    assert motion[1] > motion[0] + 1
    torch.testing.assert_close(scores.outcome, quality + 0.5 * motion)
    torch.testing.assert_close(own.evaluate(own.encode([a, b]))["scores"].detach(), quality + 0.5 * motion)


def test_weights_are_chosen_when_it_is_used() -> None:
    own = reward()
    rollout = Rollout([Sample("p", torch.tensor([1.0, 2.0]))], torch.ones(1, 1))
    before = own(rollout)
    own.weights["motion"] = -2.0
    after = own(rollout)
    assert before.parts is not None
    assert before.outcome is not None
    assert before.parts["motion"].outcome is not None
    torch.testing.assert_close(after.outcome, before.outcome - 2.5 * before.parts["motion"].outcome)


def test_odd_requests_are_named() -> None:
    with pytest.raises(ValueError, match=r"\['taste'\] have no head"):
        reward().encode([Sample("p", torch.zeros(2))], ["taste"])
    with pytest.raises(ValueError, match="for 2 heads"):
        HeadsReward(Net(3), {"a": 1.0, "b": 1.0}, condition=lambda p: torch.ones(1)).of(
            torch.zeros(1, 2), torch.ones(1, 1)
        )
    with pytest.raises(ValueError, match="at least one"):
        HeadsReward(Net(), {}, condition=lambda p: torch.ones(1))
    with pytest.raises(KeyError, match="scores"):
        reward().evaluate(reward().encode([Sample("p", torch.zeros(2))]), ("logps",))
