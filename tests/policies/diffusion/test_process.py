"""Steps back from noise: parity with diffusers, marginals that are kept, spreads that end."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler

from rewardkit.policies.diffusion import Diffusion, Flow


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("eta", [0.0, 0.6, 1.0])
def test_a_step_back_is_that_of_diffusers(prediction: str, eta: float) -> None:
    """Mean by the step without noise; spread by two different noises. Its own variance, given the same state."""
    theirs = DDIMScheduler(
        num_train_timesteps=200,
        prediction_type=prediction,
        clip_sample=False,
        set_alpha_to_one=True,
        beta_schedule="linear",
    )
    theirs.set_timesteps(10)
    ours = Diffusion.of(theirs)
    assert ours.times(10).tolist() == theirs.timesteps.tolist()
    x, output, z = (torch.randn(3, 2, 4, dtype=torch.float64) for _ in range(3))
    for i, t in enumerate(theirs.timesteps):
        want = theirs.step(output, t, x, eta=eta, variance_noise=z).prev_sample
        mean, std = ours.step(x, output, torch.full((3,), i), 10, eta)
        torch.testing.assert_close(mean + std * z, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_with_all_steps_and_eta_1_it_is_ddpm(prediction: str) -> None:
    """Its own posterior variance, and the mean that each kind of network gives."""
    theirs = DDPMScheduler(
        num_train_timesteps=50, clip_sample=False, beta_schedule="linear", prediction_type=prediction
    )
    theirs.set_timesteps(50)
    ours = Diffusion.of(theirs)
    x, output = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    for i in (0, 20, 48):
        t = int(theirs.timesteps[i])
        chance = torch.Generator().manual_seed(5)
        want = theirs.step(output, t, x, generator=chance).prev_sample
        z = torch.randn(2, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
        mean, std = ours.step(x, output, torch.full((2,), i), 50, 1.0)
        torch.testing.assert_close(mean + std * z, want, rtol=1e-4, atol=1e-4)


def test_data_are_clipped_as_ddpm_clips_them() -> None:
    theirs = DDPMScheduler(num_train_timesteps=50, clip_sample=True, clip_sample_range=0.8, beta_schedule="linear")
    theirs.set_timesteps(50)
    ours = Diffusion.of(theirs)
    x, output = (3 * torch.randn(2, 3, dtype=torch.float64) for _ in range(2))
    t = int(theirs.timesteps[10])
    want = theirs.step(output, t, x, generator=torch.Generator().manual_seed(5)).prev_sample
    z = torch.randn(2, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    mean, std = ours.step(x, output, torch.full((2,), 10), 50, 1.0)
    torch.testing.assert_close(mean + std * z, want, rtol=1e-4, atol=1e-4)
    free, _ = Diffusion(ours.alphas).step(x, output, torch.full((2,), 10), 50, 1.0)
    assert not torch.allclose(free, mean)


def test_flow_without_noise_is_eulers_step_as_diffusers_has_it() -> None:
    theirs = FlowMatchEulerDiscreteScheduler(shift=3.0)
    theirs.set_timesteps(sigmas=torch.linspace(1, 0, 9)[:-1].tolist())
    ours = Flow(shift=3.0)
    x, v = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    for i, t in enumerate(theirs.timesteps):
        mean, std = ours.step(x, v, torch.full((2,), i), 8, 0.0)
        torch.testing.assert_close(mean, theirs.step(v, t, x).prev_sample.to(mean), rtol=1e-4, atol=1e-4)
        assert not std.any()


def exact(process: Diffusion | Flow, x: torch.Tensor, i: torch.Tensor, steps: int, spread: float) -> torch.Tensor:
    """What a perfect network says where the data are Gaussian with this spread."""
    if isinstance(process, Flow):
        s = process._levels(steps)[i][:, None].to(x)
        return (s - (1 - s) * spread**2) / ((1 - s) ** 2 * spread**2 + s**2) * x
    a = process.alphas[process.times(steps).long()][i][:, None].to(x)
    return (1 - a).sqrt() * x / (a * spread**2 + 1 - a)


@pytest.mark.parametrize("eta", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("process", [Diffusion.cosine(400), Flow()], ids=["diffusion", "flow"])
def test_every_eta_ends_at_the_data(process: Diffusion | Flow, eta: float) -> None:
    """With the exact network, noise added on the way changes no marginal."""
    steps, spread = 200, 0.5
    chance = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, 1, generator=chance, dtype=torch.float64)
    for i in range(steps):
        index = torch.full((len(x),), i)
        mean, std = process.step(x, exact(process, x, index, steps, spread), index, steps, eta)
        x = mean + std * torch.randn(x.shape, generator=chance, dtype=torch.float64)
    assert float(x.std()) == pytest.approx(spread, rel=0.05)
    assert abs(float(x.mean())) < 0.02


@pytest.mark.parametrize("process", [Diffusion.cosine(100), Flow()], ids=["diffusion", "flow"])
def test_the_last_step_adds_no_noise_and_all_others_do(process: Diffusion | Flow) -> None:
    x = torch.randn(6, 2)
    _, std = process.step(x, x, torch.arange(6), 6, 1.0)
    assert (std[:-1] > 0).all()
    assert std[-1] == 0
    assert torch.isfinite(std).all()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_network_that_is_right_finds_the_data_at_once(prediction: str) -> None:
    process = Diffusion(Diffusion.cosine(100).alphas, prediction)  # type: ignore[arg-type]
    clean, noise = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    x, target = process.noised(clean, noise, torch.zeros(5))
    mean, _ = process.step(x, target, torch.full((5,), 9), 10, 0.0)
    torch.testing.assert_close(mean, clean)


def test_odd_requests_are_named() -> None:
    with pytest.raises(ValueError, match="between 1 and the 10"):
        Diffusion.cosine(10).times(11)
    with pytest.raises(ValueError, match="alphas_cumprod"):
        Diffusion.of(object())
    assert math.isclose(float(Diffusion.cosine(1000).alphas[0]), 1.0, abs_tol=1e-3)
