"""Guidance by the gradient of a reward of the clean output: its direction, and its correction by particles."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rewardkit.guidance.gradient import corrected, dps
from rewardkit.guidance.particles import Steering, particles
from rewardkit.policies.diffusion import Denoise, Diffusion, DiffusionPolicy
from rewardkit.rewards.base import RewardBase
from rewardkit.types import Rollout, Scores

MEAN, SPREAD, HOW = 0.5, 0.6, Denoise(12)


class Exact(nn.Module):
    """The noise that there is in a state, in expectation, where data are Gaussian."""

    def __init__(self, process: Diffusion) -> None:
        super().__init__()
        self.unused, self.alphas = nn.Parameter(torch.zeros(1)), process.alphas

    def forward(self, x: Tensor, time: Tensor, condition: Any = None) -> Tensor:
        a = self.alphas[time.long()][:, None].float()
        return (1 - a).sqrt() * (x - a.sqrt() * MEAN) / (a * SPREAD**2 + 1 - a)


@pytest.fixture
def policy() -> DiffusionPolicy:
    process = Diffusion.cosine(100)
    return DiffusionPolicy(Exact(process), process, (1,))


class First(RewardBase):
    name = "first"

    def __call__(self, rollout: Rollout, ctx: Any = None) -> Scores:
        return Scores(torch.stack([s.output[0] for s in rollout.samples]))


def first(outputs: Tensor, condition: Any) -> Tensor:
    return outputs[:, 0]


def test_a_gaussian_with_a_linear_reward_moves_by_the_tilt(policy: DiffusionPolicy) -> None:
    """``p(x) exp(w x)`` is the same Gaussian, moved by ``w`` times its variance; there the mean is all that matters."""
    plain, guided = (
        torch.stack([s.output for s in p.sample([None], 4000, sampling=Denoise(40), seed=0).samples])
        for p in (policy, dps(policy, first, 1.5))
    )
    assert float(plain.mean()) == pytest.approx(MEAN, abs=0.05)
    assert float(guided.mean() - plain.mean()) == pytest.approx(1.5 * SPREAD**2, abs=0.06)
    assert float(guided.std()) == pytest.approx(float(plain.std()), abs=0.04)


def test_guided_and_bare_policies_may_step_one_state(policy: DiffusionPolicy) -> None:
    """What one network call said is not taken for the other's."""
    with torch.no_grad():
        state = policy.start([None] * 3, sampling=HOW, seed=0)
        bare = policy.transition(state)[0]
        assert not torch.equal(dps(policy, first, 2.0).transition(state)[0], bare)
        assert torch.equal(policy.transition(state)[0], bare)


def estimate(policy: DiffusionPolicy, proposal: Any) -> tuple[float, float]:
    """``E[exp(x)]`` by particles that are never resampled, and its standard error."""
    steering = Steering(lam=1.0, every=(), potential="difference")
    found = particles(policy, First(), [None] * 4000, 1, steering, proposal=proposal, sampling=HOW, seed=1)
    z = found.log_z.exp()
    return float(z.mean()), float(z.std()) / 4000**0.5


def test_as_a_proposal_its_ratio_makes_the_estimate_unbiased(policy: DiffusionPolicy) -> None:
    guided = dps(policy, first, 1.0)
    plain, error = estimate(policy, None)
    found, smaller = estimate(policy, corrected(policy, guided))
    assert abs(found - plain) < 4 * (error**2 + smaller**2) ** 0.5
    assert smaller < 0.05
    raw = corrected(policy, guided)
    wrong, _ = estimate(policy, lambda state: (raw(state)[0], torch.zeros(len(state))))
    assert abs(wrong - plain) > 10 * error, "without the ratio it is another law's"
