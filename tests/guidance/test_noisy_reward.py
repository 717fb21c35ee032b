"""Guidance on noisy states: the published step, exact densities, and the tilted law where it is known."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rewardkit.data.rows import attach, comparison_rows
from rewardkit.guidance.noisy_reward import noisy_reward_guidance
from rewardkit.objectives.reward import bradley_terry
from rewardkit.policies.diffusion import Denoise, Diffusion, DiffusionPolicy, Flow, PointNet
from rewardkit.rewards.learned.noisy import NoisyReward
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Judgement, Sample


def value(x: torch.Tensor, time: torch.Tensor, condition: Any) -> torch.Tensor:
    return -(x - 1).square().sum(-1) * (1 + time)


def test_a_guided_flow_says_what_the_paper_writes() -> None:
    torch.manual_seed(0)
    policy = DiffusionPolicy(PointNet(2, width=8, depth=1), Flow(), (2,))
    guided = noisy_reward_guidance(policy, value, 0.7)
    x, t = torch.randn(5, 2), torch.tensor([0.1, 0.3, 0.5, 0.7, 0.95])
    gradient = -2 * (x - 1) * (1 + t)[:, None]
    want = policy.module(x, t) - 0.7 * (t / (1 - t))[:, None] * gradient
    torch.testing.assert_close(guided.call(guided.module, x, t, None), want, rtol=1e-4, atol=1e-4)


def exact(spread: float) -> Any:
    """The network of a standard process whose data are Gaussian with mean 0."""

    class Exact(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x: torch.Tensor, s: torch.Tensor, condition: Any = None) -> torch.Tensor:
            s = s[:, None]
            return (s - (1 - s) * spread**2) / ((1 - s) ** 2 * spread**2 + s**2) * x

    return Exact()


def test_with_the_exact_noisy_reward_it_draws_from_the_tilted_law() -> None:
    """Data N(0, v) and reward c x: tilted by w they are N(w c v, v); given x_s the clean one has mean k x."""
    v, c, w = 0.25, 1.5, 0.8
    policy = DiffusionPolicy(exact(v**0.5), Flow(), (1,))

    def noisy(x: torch.Tensor, s: torch.Tensor, condition: Any) -> torch.Tensor:
        k = (1 - s) * v / ((1 - s) ** 2 * v + s**2)
        return c * k * x[:, 0]  # log E[exp(w c x_0)] / w but for what does not depend on x

    rollout = noisy_reward_guidance(policy, noisy, w).sample([None], 20_000, sampling=Denoise(100, eta=0.0), seed=0)
    points = torch.stack([s.output[0] for s in rollout.samples])
    assert float(points.mean()) == pytest.approx(w * c * v, abs=0.02)
    assert float(points.var()) == pytest.approx(v, rel=0.05)


def test_a_guided_policy_has_exact_log_probs_and_weight_0_changes_nothing() -> None:
    torch.manual_seed(0)
    policy = DiffusionPolicy(PointNet(2, width=8, depth=1, scale=50.0), Diffusion.cosine(50), (2,))
    guided = noisy_reward_guidance(policy, value, 0.5)
    rollout = guided.sample([None], 4, sampling=Denoise(5), seed=0)
    torch.testing.assert_close(guided.evaluate(rollout)["logps"].detach(), rollout["old_logps"])
    assert not torch.allclose(policy.evaluate(rollout)["logps"].detach(), rollout["old_logps"])
    same = noisy_reward_guidance(policy, value, 0.0).sample([None], 4, sampling=Denoise(5), seed=0)
    torch.testing.assert_close(
        same.inputs["states"],
        policy.sample([None], 4, sampling=Denoise(5), seed=0).inputs["states"],
        rtol=1e-4,
        atol=1e-4,
    )


def test_a_comparison_shares_its_time_but_not_its_noise_and_the_model_learns() -> None:
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(2, 1)

        def forward(self, x: torch.Tensor, time: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
            return self.net(x)

    reward = NoisyReward(Net(), Flow(), condition=lambda prompt: torch.ones(1))
    judged = [
        Judgement((Sample("p", torch.tensor([1.0, y])), Sample("p", torch.tensor([-1.0, -y]))), rank=(0, 1))
        for y in (-1.0, 0.0, 1.0)
    ]
    rows, learner = comparison_rows(judged), Learner(reward, lr=0.05)
    data = reward.encode(rows.samples, rows.group)
    clean = torch.stack([s.output for s in rows.samples])
    for i in (0, 2, 4):
        s = data.inputs["time"][i]
        assert s == data.inputs["time"][i + 1]
        noise = (data.inputs["x"][i : i + 2] - (1 - s) * clean[i : i + 2]) / s
        assert not torch.allclose(noise[0], noise[1])
    for _ in range(50):
        learner.step(Term(attach(reward.encode(rows.samples, rows.group), rows), bradley_terry))
    assert float(reward.module.net.weight[0, 0].detach()) > 0.3
    with pytest.raises(KeyError, match="scores"):
        reward.evaluate(data, ("logps",))


def test_views_that_a_guided_policy_keeps_are_its_own() -> None:
    policy = DiffusionPolicy(PointNet(2, width=8, depth=1), Flow(), (2,))
    start = policy.at("start")
    guided = noisy_reward_guidance(policy, value, 0.7)
    assert guided.at("start") is start
    kept = guided.keep("start")
    assert policy.at("start") is start
    assert guided.at("start") is kept
    assert kept.call is guided.call
