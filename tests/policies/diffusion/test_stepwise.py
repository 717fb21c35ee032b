"""A sampler one step at a time: the same draws as whole samples, forks that go their own way, gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.policies.diffusion.conftest import PROMPTS, points

from rewardkit.policies.diffusion import Denoise, DiffusionPolicy, Flow
from rewardkit.protocols import State, Stepwise


@pytest.fixture(params=["diffusion", "flow"])
def policy(request: pytest.FixtureRequest) -> DiffusionPolicy:
    return points(request.param)


def test_stepping_from_a_seed_draws_what_sample_draws_with_its_log_probs(policy: DiffusionPolicy) -> None:
    how = Denoise(6, guidance=1.5)
    rollout = policy.sample(PROMPTS, sampling=how, seed=1)
    with torch.no_grad():
        state = policy.start(PROMPTS, sampling=how, seed=1)
        assert isinstance(policy, Stepwise)
        assert isinstance(state, State)
        states, logps = [state.x], []
        while not state.done.all():
            actions, said = policy.propose(state)
            logps.append(torch.zeros(2) if said is None else said[:, 0])
            state = policy.step(state, actions[:, 0])
            states.append(state.x)
    assert torch.equal(torch.stack(states, 1), rollout.inputs["states"])
    torch.testing.assert_close(torch.stack(logps, 1), rollout["old_logps"], atol=1e-5, rtol=1e-5)
    assert said is None, "the last step has no density"
    assert [s.ended for s in policy.look(state)] == ["done"] * 2
    assert rollout.cost.calls == 2 * 6 * 2, "guidance calls the network twice"
    assert torch.equal(policy.step(state, state.x + 1).x, state.x)


def test_proposals_have_the_mean_and_spread_of_the_step(policy: DiffusionPolicy) -> None:
    with torch.no_grad():
        state = policy.start(PROMPTS, sampling=Denoise(4), seed=2)
        mean, std = policy.transition(state)
        drawn, logps = policy.propose(state, 4000)
    assert logps is not None
    assert drawn.shape == (2, 4000, 3)
    assert logps.shape == (2, 4000)
    z = (drawn - mean[:, None]) / std[:, None]
    assert z.mean(1).abs().max() < 4 / 4000**0.5
    assert (z.var(1) - 1).abs().max() < 0.15
    # -E log p is the entropy of three independent Gaussians.
    entropy = 3 * (0.5 * torch.log(2 * torch.pi * torch.e * std.flatten() ** 2))
    torch.testing.assert_close(-logps.mean(1), entropy, atol=0.1, rtol=0)


def test_without_noise_a_proposal_has_no_log_prob(policy: DiffusionPolicy) -> None:
    with torch.no_grad():
        drawn, logps = policy.propose(policy.start(PROMPTS, sampling=Denoise(4, eta=0.0), seed=0), 2)
    assert logps is None
    assert torch.equal(drawn[:, 0], drawn[:, 1])


def test_a_look_is_the_clean_output_that_the_network_sees(policy: DiffusionPolicy) -> None:
    """From it and the noise that goes with it, the state itself comes back."""
    with torch.no_grad():
        state = policy.start(PROMPTS, sampling=Denoise(5), seed=0)
        for _ in range(2):
            state = policy.step(state, policy.propose(state)[0][:, 0])
        looked = policy.look(state)
        time = policy.process.times(5)[2].repeat(2)
        clean = torch.stack([s.output for s in looked])
        output = policy.module(state.x, time, state.condition)
        if isinstance(policy.process, Flow):
            torch.testing.assert_close(state.x - time[:, None] * output, clean)
        else:
            a = policy.process.alphas[time.long()][:, None].float()
            torch.testing.assert_close(a.sqrt() * clean + (1 - a).sqrt() * output, state.x)
    assert [(s.prompt, s.ended) for s in looked] == [("left", "cut"), ("right", "cut")]


def test_forks_share_the_past_reorder_their_prompts_and_leave_the_old_state(policy: DiffusionPolicy) -> None:
    with torch.no_grad():
        state = policy.start(PROMPTS, sampling=Denoise(3), seed=0)
        before = state.x.clone()
        policy.look(state)
        forked = state.select(torch.tensor([1, 1, 0]))
        assert torch.equal(forked.x, before[[1, 1, 0]])
        assert [s.prompt for s in forked.starts] == ["right", "right", "left"]
        torch.testing.assert_close(
            torch.stack([s.output for s in policy.look(forked)]),
            torch.stack([s.output for s in policy.look(state)])[[1, 1, 0]],
        )
        ahead = policy.step(forked, policy.propose(forked)[0][:, 0])
        assert not torch.equal(ahead.x[0], ahead.x[1]), "siblings draw apart"
        mean, _ = policy.transition(ahead)
        alone = policy.transition(ahead.select(torch.tensor([2])))[0]
        torch.testing.assert_close(alone[0], mean[2])
    assert torch.equal(state.x, before)


def test_proposals_and_looks_share_one_network_call_but_not_across_weights(policy: DiffusionPolicy) -> None:
    calls: list[int] = []
    policy.module.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        state = policy.start(PROMPTS, sampling=Denoise(3), seed=0)
        first = policy.propose(state)[0].shape, policy.look(state)
        assert len(calls) == 1, first
        for p in policy.module.parameters():
            p.add_(0.1)
        changed = policy.look(state)
    assert len(calls) == 2
    assert not torch.allclose(first[1][0].output, changed[0].output)


def test_gradients_pass_through_steps_and_looks_to_weights_and_states(policy: DiffusionPolicy) -> None:
    with torch.no_grad():
        drawn = policy.sample(PROMPTS, sampling=Denoise(3), seed=4)
        quiet = policy.start(PROMPTS, sampling=Denoise(3), seed=4)
        policy.look(quiet)
    state = quiet
    for _ in range(3):
        state = policy.step(state, policy.propose(state)[0][:, 0])
    output = torch.stack([s.output for s in policy.look(state)])
    torch.testing.assert_close(output, torch.stack([s.output for s in drawn.samples]))
    weight = policy.module.last.weight
    [found] = torch.autograd.grad(output.square().sum(), [weight])
    noise = drawn.inputs["states"]
    x: Any = noise[:, 0]
    for i in range(3):
        said = policy.module(x, policy.process.times(3)[i].repeat(2), quiet.condition)
        mean, std = policy.process.step(x, said, torch.full((2,), i), 3, 1.0)
        x = mean + (noise[:, i + 1] - mean).detach()
        assert std.shape == (2, 1)
    [want] = torch.autograd.grad(x.square().sum(), [weight])
    torch.testing.assert_close(found, want, atol=1e-4, rtol=1e-4)


def test_a_finished_state_takes_no_further_step(policy: DiffusionPolicy) -> None:
    state = policy.start(PROMPTS, sampling=Denoise(1), seed=0)
    state = policy.step(state, policy.propose(state)[0][:, 0])
    with pytest.raises(ValueError, match="all its 1 steps"):
        policy.transition(state)
