"""What recipes on world ``gaussians`` share: distances by hand, annotators who may call two points equal."""

from __future__ import annotations

import math

import pytest
import torch

from rewardkit.papers import gaussians
from rewardkit.papers.gaussians import WORLD, mmd, pairs_with_ties, transport
from rewardkit.papers.recipe import Run
from rewardkit.papers.recipes.b2_diffurl import noise, shared
from rewardkit.policies.diffusion import Denoise


def test_transport_is_the_length_of_a_shift_and_ignores_order() -> None:
    x = torch.randn(2, 40, 2, generator=torch.Generator().manual_seed(0))
    assert transport(x, x[:, torch.randperm(40)]) == pytest.approx(0.0, abs=1e-6)
    assert transport(x, x + torch.tensor([3.0, 4.0])) == pytest.approx(5.0, rel=1e-5)


def test_mmd_is_that_of_two_gaussians() -> None:
    """``2 k (1 - exp(-m^2 / (2 u)))`` for N(0, s^2 I) and N(m, s^2 I) in the plane, u = w^2 + 2 s^2, k = w^2 / u."""
    chance = torch.Generator().manual_seed(0)
    a, b = (0.4 * torch.randn(1, 3000, 2, generator=chance) for _ in range(2))
    b = b + torch.tensor([0.6, 0.0])
    wide = 0.5**2 + 2 * 0.4**2
    want = 2 * 0.5**2 / wide * (1 - math.exp(-(0.6**2) / (2 * wide)))
    assert mmd(a, b) == pytest.approx(want, abs=0.02)
    assert abs(mmd(a, 0.4 * torch.randn(1, 3000, 2, generator=chance))) < 0.01


def test_annotators_call_equal_points_equal_as_often_as_their_model_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal points tie with probability (theta - 1) / (theta + 1)."""
    monkeypatch.setattr(gaussians.WORLD.gold, "of", lambda points, prompts: torch.zeros(len(points)))
    judged = pairs_with_ties(WORLD.policy("flow"), 2000, 3, how=Denoise(1), theta=3.0)
    share = sum(j.rank == (0, 0) for j in judged) / len(judged)
    assert share == pytest.approx(0.5, abs=4 * math.sqrt(0.25 / 2000))
    won = sum(j.rank == (0, 1) for j in judged) / len(judged)
    assert won == pytest.approx(0.25, abs=4 * math.sqrt(0.19 / 2000))


def test_the_last_steps_are_trained_first_and_all_in_the_end() -> None:
    assert [shared(t, 7) for t in range(1, 8)] == [6, 5, 4, 3, 2, 1, 0]
    assert shared(1, 1) == 6


def test_gradient_noise_is_variance_over_the_squared_mean() -> None:
    chance = torch.Generator().manual_seed(0)
    gradients = [{"w": torch.tensor([3.0, 4.0]) + 0.5 * torch.randn(2, generator=chance)} for _ in range(4000)]
    assert noise(gradients) == pytest.approx(2 * 0.25 / 25, rel=0.1)


def test_runs_of_other_seeds_train_on_other_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else an interval over seeds leaves the noise of training out."""
    monkeypatch.setattr(gaussians, "_base", lambda kind, steps: WORLD.policy(kind))
    shown = WORLD.demonstrations(4, seed=0)
    one, again, other = (gaussians.base(Run(seed, True)).encode(shown).inputs["noise"] for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
