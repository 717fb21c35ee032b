"""The denoiser in closed form: the score of the noised mixture, by automatic differentiation."""

from __future__ import annotations

import torch

from rewardkit.policies.diffusion import Denoise
from rewardkit.worlds.gaussians import Gaussians, Mixture
from rewardkit.worlds.gaussians.exact import ExactNoise, exact_policy


def test_it_is_the_score_of_the_noised_mixture_with_any_covariance() -> None:
    chance = torch.Generator().manual_seed(0)
    root = torch.randn(3, 2, 2, generator=chance, dtype=torch.float64)
    weights = torch.randn(3, generator=chance, dtype=torch.float64).log_softmax(0)
    data = Mixture(weights, torch.randn(3, 2, generator=chance), root @ root.mT + 0.1 * torch.eye(2))
    alphas = torch.tensor([0.9, 0.5, 0.1])
    net = ExactNoise([data, data], alphas)
    x = torch.randn(3, 2, generator=chance)
    found = net(x, torch.arange(3.0), torch.eye(2)[[0, 1, 0]])
    for i, a in enumerate(alphas.double()):
        noised = Mixture(weights, a.sqrt() * data.means.double(), a * data.covariances + (1 - a) * torch.eye(2))
        leaf = x[i : i + 1].double().requires_grad_()
        [score] = torch.autograd.grad(noised.log_prob(leaf).sum(), leaf)
        torch.testing.assert_close(found[i].double(), -(1 - a).sqrt() * score[0], atol=1e-4, rtol=1e-4)


def test_its_samples_have_the_moments_of_the_demonstrations() -> None:
    world = Gaussians(2, seed=3)
    drawn = exact_policy(world).sample(world.prompts, 3000, sampling=Denoise(60), seed=0)
    points = torch.stack([s.output for s in drawn.samples]).reshape(2, 3000, 2).double()
    for row, prompt in enumerate(world.prompts):
        mean, covariance = world.data[prompt].moments()
        torch.testing.assert_close(points[row].mean(0), mean, atol=0.08, rtol=0)
        torch.testing.assert_close(points[row].T.cov(), covariance, atol=0.12, rtol=0)
