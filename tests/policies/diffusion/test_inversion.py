"""Encoding by inversion: the way up is the way down read backwards, and the same losses read what it finds."""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Any

import pytest
import torch
from diffusers import DDIMInverseScheduler

from rewardkit.objectives.base import Loss, mean
from rewardkit.objectives.preference import dpo
from rewardkit.policies.diffusion import Diffusion, DiffusionPolicy, Flow, Inverted, PointNet
from rewardkit.policies.diffusion import policy as policy_module
from rewardkit.policies.diffusion.inversion import invert
from rewardkit.policies.diffusion.process import like
from rewardkit.training.learner import Learner
from rewardkit.training.reference import attach_reference
from rewardkit.training.term import Term
from rewardkit.types import Rollout, Sample

PROMPTS = ["left", "right"]
PROCESSES = {
    "epsilon": Diffusion.cosine(200),
    "v_prediction": Diffusion.cosine(200, "v_prediction"),
    "flow": Flow(),
}


def condition(prompt: Any) -> torch.Tensor:
    return torch.eye(2)[PROMPTS.index(prompt)]


def policy(process: Any, draws: int = 3) -> DiffusionPolicy:
    torch.manual_seed(0)
    scale = 1.0 if isinstance(process, Flow) else 200.0
    net = PointNet(2, 2, width=16, depth=1, scale=scale)
    return DiffusionPolicy(net, process, (2,), condition=condition, draws=draws)


def pairs(rollout: Rollout, own: DiffusionPolicy) -> Rollout:
    rollout.group = torch.arange(len(rollout)) // 2
    return attach_reference(rollout.with_tensors(rank=torch.arange(len(rollout)) % 2), own.at("start"))


SAMPLES = [Sample(p, torch.tensor(x)) for p, x in zip(
    ("left", "left", "right", "right"), ([1.0, 0.5], [-1.0, 0.0], [0.3, 0.3], [2.0, -1.0]), strict=True
)]  # fmt: skip


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_deterministic_step_is_the_sampler_without_noise(prediction: str) -> None:
    process = Diffusion(Diffusion.cosine(50).alphas, prediction)  # type: ignore[arg-type]
    x, output = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    times = torch.cat([process.times(5), -torch.ones(1)])
    for i in range(5):
        want, _ = process.step(x, output, torch.full((4,), i), 5, 0.0)
        a, b = process.ode(times[i].expand(4), times[i + 1].expand(4))
        torch.testing.assert_close(like(a, x) * x + like(b, x) * output, want)


def test_a_deterministic_step_of_a_flow_is_eulers() -> None:
    x, output = torch.randn(4, 3), torch.randn(4, 3)
    want, _ = Flow().step(x, output, torch.full((4,), 1), 4, 0.0)
    a, b = Flow().ode(torch.full((4,), 0.75), torch.full((4,), 0.5))
    torch.testing.assert_close(like(a, x) * x + like(b, x) * output, want)


@pytest.mark.parametrize("name", PROCESSES)
def test_states_come_apart_into_what_they_were_made_of(name: str) -> None:
    process = PROCESSES[name]
    clean, noise, time = torch.randn(4, 2), torch.randn(4, 2), process.draw_times(4, None).clamp(max=150)
    x, target = process.noised(clean, noise, time)
    for got, want in zip(process.parts(x, target, time), (clean, noise), strict=True):
        torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
    a, b = process.scales(time)
    torch.testing.assert_close(like(a, x) * clean + like(b, x) * noise, x)


@pytest.mark.parametrize("name", PROCESSES)
def test_sampling_from_where_inversion_arrived_leads_back_to_the_output(name: str) -> None:
    process = PROCESSES[name]
    torch.manual_seed(1)
    own, clean = policy(process), torch.randn(6, 2)
    time = torch.full((6,), 0.8 if name == "flow" else 160.0)
    code = condition("left").expand(6, 2)
    with torch.no_grad():
        errors = []
        for steps in (10, 40, 160):
            noise = invert(process, lambda x, t: own.module(x, t, code), clean, time, Inverted(steps))
            x, _ = process.noised(clean, noise, time)
            times = process.path(time, steps).flip(1).unbind(1)
            for now, then in itertools.pairwise(times):
                a, b = process.ode(now, then)
                x = like(a, x) * x + like(b, x) * own.module(x, now, code)
            errors.append(float((x - clean).abs().max()))
    assert errors[-1] < 0.05, "the tolerance"
    assert errors[2] < errors[1] < errors[0], "and it shrinks with the steps"


def test_a_step_up_is_that_of_diffusers() -> None:
    theirs = DDIMInverseScheduler(num_train_timesteps=200, clip_sample=False, beta_schedule="linear")
    theirs.set_timesteps(10)
    process = Diffusion(theirs.alphas_cumprod.double())
    x, said = torch.randn(3, 2, dtype=torch.float64), torch.randn(10, 3, 2, dtype=torch.float64)
    want, got = x, x
    for k, t in enumerate(theirs.timesteps):
        want = theirs.step(said[k], t, want).prev_sample
        now, then = torch.full((3,), float(theirs.timesteps[k - 1]) if k else -1.0), torch.full((3,), float(t))
        a, b = process.ode(then, now)
        got = (got - like(b, got) * said[k]) / like(a, got)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", PROCESSES)
def test_winner_loser_and_reference_stand_at_the_same_times(name: str) -> None:
    own = policy(PROCESSES[name])
    rollout = own.encode(SAMPLES, inverted=Inverted(4))
    assert torch.equal(rollout.inputs["times"][0], rollout.inputs["times"][1])
    assert not torch.equal(rollout.inputs["noise"][0], rollout.inputs["noise"][1])
    assert torch.isfinite(rollout.inputs["noise"]).all()
    assert not rollout.inputs["noise"].requires_grad


def loss(rollout: Rollout, own: DiffusionPolicy) -> torch.Tensor:
    rollout = pairs(rollout, own)
    index = torch.tensor([[0, 1], [2, 3]])
    found: Loss = dpo(
        own.evaluate(rollout)["logps"], rollout["ref_logps"], rollout.mask, index, beta=2.0, over="position"
    )
    return mean(found, rollout.mask, dpo, pairs=index)


@pytest.mark.parametrize("name", PROCESSES)
def test_a_policy_that_is_its_reference_has_a_loss_of_log_2(name: str) -> None:
    own = policy(PROCESSES[name])
    assert float(loss(own.encode(SAMPLES, inverted=Inverted(4)), own).detach()) == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("name", PROCESSES)
def test_with_forward_noise_instead_it_is_diffusion_dpo(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = policy(PROCESSES[name]), policy(PROCESSES[name])
    with torch.no_grad():
        for own in (one, two):
            own.module.last.weight += 0.1
    plain = one.encode(SAMPLES)
    noise = plain.inputs["noise"]
    monkeypatch.setattr(policy_module, "invert", lambda *given: noise.flatten(0, 1))
    assert torch.equal(loss(two.encode(SAMPLES, inverted=Inverted(4)), two), loss(plain, one))


def test_the_noise_found_is_that_of_the_present_weights() -> None:
    one, two = policy(Flow()), policy(Flow())
    same = two.encode(SAMPLES, inverted=Inverted(4)).inputs["noise"]
    torch.testing.assert_close(one.encode(SAMPLES, inverted=Inverted(4)).inputs["noise"], same)
    with torch.no_grad():
        two.module.last.bias += 0.5
    two.encoded = one.encoded = 0
    moved = two.encode(SAMPLES, inverted=Inverted(4)).inputs["noise"]
    assert not torch.allclose(moved, same)
    two.encoded = 0
    shaken = two.encode(SAMPLES, inverted=Inverted(4, eta=0.1)).inputs["noise"]
    assert 0 < float((shaken - moved).std()) < 0.5


def test_preferences_on_inverted_rows_move_towards_the_winner() -> None:
    own = policy(Flow())
    learner, margins = Learner(own, lr=1e-2), []
    for _ in range(30):
        rollout = pairs(own.encode(SAMPLES, inverted=Inverted(4)), own)
        margins.append(learner.step(Term(rollout, partial(dpo, beta=1.0, over="position")))["dpo/margin"])
    assert margins[0] == pytest.approx(0.0, abs=1e-5)
    assert sum(margins[-5:]) > 0


def test_what_cannot_be_inverted_is_named() -> None:
    own = policy(Diffusion.cosine(50, "sample"))
    with pytest.raises(ValueError, match="epsilon or v"):
        own.encode(SAMPLES, inverted=Inverted())
    with pytest.raises(ValueError, match="at least one step"):
        Inverted(0)
