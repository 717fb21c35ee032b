"""Diffusion models in the shared parts: densities of steps, shared draws, the same losses and the same loop."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
from tests.policies.diffusion.conftest import PROMPTS, condition, points
from torch import nn
from torch.distributions import Independent, Normal

from rewardkit.credit.group import group_relative
from rewardkit.data.rows import comparison_rows
from rewardkit.loops.online import online
from rewardkit.loops.prompts import PromptSet
from rewardkit.objectives.imitation import sft
from rewardkit.objectives.path import path_gradient
from rewardkit.objectives.policy import clipped
from rewardkit.objectives.preference import dpo
from rewardkit.policies.diffusion import Denoise, DiffusionPolicy, Flow, PathValue, PointNet
from rewardkit.protocols import Policy
from rewardkit.training.learner import Learner
from rewardkit.training.reference import attach_reference
from rewardkit.training.term import Term
from rewardkit.types import Judgement, Rollout, Sample, Scores


@pytest.fixture(params=["diffusion", "flow"])
def policy(request: pytest.FixtureRequest) -> DiffusionPolicy:
    return points(request.param, draws=4)


def test_it_is_a_policy(policy: DiffusionPolicy) -> None:
    assert isinstance(policy, Policy)


def test_log_probs_are_those_of_the_gaussians_that_were_drawn_from(policy: DiffusionPolicy) -> None:
    how = Denoise(6)
    rollout = policy.sample(PROMPTS, 3, sampling=how, seed=1)
    assert rollout.mask.tolist() == [[1, 1, 1, 1, 1, 0]] * 6, "the last step has no density"
    states = rollout.inputs["states"]
    with torch.no_grad():
        for i in range(5):
            index = torch.full((6,), i)
            output = policy.module(states[:, i], policy.process.times(6)[index], rollout.inputs["condition"])
            mean, std = policy.process.step(states[:, i], output, index, 6, 1.0)
            want = Independent(Normal(mean, std.expand_as(mean)), 1).log_prob(states[:, i + 1])
            torch.testing.assert_close(rollout["old_logps"][:, i], want)
    assert torch.equal(torch.stack([s.output for s in rollout.samples]), states[:, -1])
    assert not rollout["old_logps"][:, -1].any()


def test_draws_are_a_function_of_the_seed_and_evaluation_replays_how_they_were_made(policy: DiffusionPolicy) -> None:
    one = policy.sample(PROMPTS, 2, sampling=Denoise(5, eta=0.5, guidance=2.0), seed=3)
    two = policy.sample(PROMPTS, 2, sampling=Denoise(5, eta=0.5, guidance=2.0), seed=3)
    assert torch.equal(one.inputs["states"], two.inputs["states"])
    torch.testing.assert_close(policy.evaluate(one)["logps"], one["old_logps"])
    bare = policy.sample(PROMPTS, 2, sampling=Denoise(5, eta=0.5), seed=3)
    assert not torch.allclose(bare.inputs["states"], one.inputs["states"])
    with pytest.raises(ValueError, match=r"differs in \['guidance'\]"):
        Rollout.cat([one, bare])


def test_guidance_is_part_of_the_density_that_is_differentiated(policy: DiffusionPolicy) -> None:
    """With weight 1 it is the conditional model; with 0 the prompt does not matter."""
    plain = policy.sample(PROMPTS, 2, sampling=Denoise(5), seed=3)
    same = policy.sample(PROMPTS, 2, sampling=Denoise(5, guidance=1.0), seed=3)
    torch.testing.assert_close(same.inputs["states"], plain.inputs["states"])
    none = policy.sample(PROMPTS, 2, sampling=Denoise(5, guidance=0.0), seed=3)
    swapped = none.inputs | {"condition": none.inputs["condition"].flip(0)}
    other = Rollout(none.samples, none.mask, inputs=swapped, how=none.how)
    torch.testing.assert_close(policy.evaluate(other)["logps"], none["old_logps"])


def test_without_noise_there_is_no_density_and_nothing_is_trained(policy: DiffusionPolicy) -> None:
    rollout = policy.sample(PROMPTS, sampling=Denoise(4, eta=0.0), seed=0)
    assert not rollout.mask.any()


def test_winner_loser_and_reference_share_times_and_noise_and_calls_do_not(policy: DiffusionPolicy) -> None:
    samples = [Sample(p, torch.randn(3)) for p in ("left", "left", "right", "right")]
    first, second = policy.encode(samples), policy.encode(samples)
    for name in ("times", "noise"):
        assert torch.equal(first.inputs[name][0], first.inputs[name][1])
        assert not torch.equal(first.inputs[name][0], first.inputs[name][2])
        assert not torch.equal(first.inputs[name], second.inputs[name])
    rollout = attach_reference(first, policy.at("start"))
    torch.testing.assert_close(rollout["ref_logps"], policy.evaluate(rollout)["logps"].detach())


def test_two_comparisons_of_one_prompt_have_draws_of_their_own_and_both_sides_of_each_share_them(
    policy: DiffusionPolicy,
) -> None:
    pair = [Sample("left", torch.zeros(3)), Sample("left", torch.ones(3))]
    rows = comparison_rows([Judgement(tuple(pair), rank=rank) for rank in ((0, 1), (1, 0))])
    first, second = (policy.encode(rows.samples, rows.group) for _ in range(2))
    for name in ("times", "noise"):
        a, b, c, d = first.inputs[name]
        assert torch.equal(a, b)
        assert torch.equal(c, d)
        assert not torch.equal(a, c)
        assert not torch.equal(first.inputs[name], second.inputs[name]), "a fresh call draws anew"
        by_prompt = policy.encode(rows.samples).inputs[name]
        assert torch.equal(by_prompt, by_prompt[:1].expand_as(by_prompt)), "by default rows of one prompt share"
    with pytest.raises(ValueError, match=r"group must be \[4\]"):
        policy.encode(rows.samples, rows.group[:3])


def test_a_resumed_learner_goes_on_with_the_draws(policy: DiffusionPolicy) -> None:
    rows, fresh = [Sample("left", torch.zeros(3))], copy.deepcopy(policy)
    learner = Learner(policy)
    policy.encode(rows)
    kept = copy.deepcopy(learner.state_dict())
    second = policy.encode(rows)
    resumed = Learner(fresh)
    resumed.load_state_dict(kept)
    assert torch.equal(fresh.encode(rows).inputs["noise"], second.inputs["noise"])


def test_log_probs_of_given_outputs_are_minus_half_the_squared_error(policy: DiffusionPolicy) -> None:
    rollout = policy.encode([Sample("left", torch.randn(3))])
    x, target = policy.process.noised(
        rollout.inputs["clean"].expand(4, 3), rollout.inputs["noise"][0], rollout.inputs["times"][0]
    )
    said = policy.module(x, rollout.inputs["times"][0], condition("left").expand(4, 2))
    torch.testing.assert_close(policy.evaluate(rollout)["logps"][0], -0.5 * (said - target).square().sum(-1))


def test_dpo_moves_towards_the_winner(policy: DiffusionPolicy) -> None:
    winner, loser = Sample("left", torch.tensor([1.0, 1.0, 0.0])), Sample("left", torch.tensor([-1.0, -1.0, 0.0]))
    learner = Learner(policy, lr=1e-2)
    margins = []
    for _ in range(20):
        rollout = policy.encode([winner, loser]).with_tensors(rank=torch.tensor([0, 1]))
        rollout.group = torch.zeros(2, dtype=torch.long)
        rollout = attach_reference(rollout, policy.at("start"))
        margins.append(learner.step(Term(rollout, partial(dpo, beta=1.0)))["dpo/margin"])
    assert margins[0] == pytest.approx(0.0, abs=1e-5)
    assert sum(margins[-5:]) > 0


def test_denoising_training_is_sft(policy: DiffusionPolicy) -> None:
    learner = Learner(policy, lr=3e-3)
    data = [Sample(p, torch.tensor([1.0, -1.0, 0.5]) * (1 if p == "left" else -1)) for p in PROMPTS * 16]
    losses = [learner.step(Term(policy.encode(data), sft))["loss"] for _ in range(150)]
    assert sum(losses[-20:]) < 0.7 * sum(losses[:20])


class First:
    """Likes a large first number."""

    name, scope = "first", "sample"

    def __call__(self, rollout: Rollout, ctx: Any = None) -> Scores:
        return Scores(torch.stack([s.output[0] for s in rollout.samples]))


def test_the_one_loop_climbs_with_the_same_credit_and_the_same_loss(policy: DiffusionPolicy) -> None:
    learner = Learner(policy, lr=3e-3)
    run = online(
        learner, PromptSet(PROMPTS), First(), group_relative, clipped, reference="start", n=32, batch=2, steps=25,
        sampling=Denoise(5), seed=0,
    )  # fmt: skip
    found = [t.metrics for t in run]
    assert found[0]["clipped/ratio"] == pytest.approx(1.0, abs=1e-4)
    assert sum(m["reward"] for m in found[-5:]) > sum(m["reward"] for m in found[:5])
    assert found[-1]["kl/k1_response"] > 0


def test_what_it_cannot_evaluate_is_named(policy: DiffusionPolicy) -> None:
    with pytest.raises(KeyError, match="entropy"):
        policy.evaluate(policy.sample(PROMPTS, sampling=Denoise(3)), ("entropy",))
    unprompted = DiffusionPolicy(nn.Module(), Flow(), (1,))
    unprompted.module.register_parameter("w", nn.Parameter(torch.zeros(1)))
    unprompted.module.forward = lambda x, t, c: x * unprompted.module.w  # type: ignore[method-assign,assignment]
    with pytest.raises(ValueError, match="pass condition="):
        unprompted.sample([None], sampling=Denoise(2, guidance=2.0))
    with pytest.raises(ValueError, match="eta >= 0"):
        Denoise(3, eta=-1.0)


@pytest.mark.parametrize("last", [1, 3, 9])
def test_path_gradients_are_those_of_the_sampler_written_out(policy: DiffusionPolicy, last: int) -> None:
    rollout = policy.sample(PROMPTS, 2, sampling=Denoise(5), seed=1)

    def value(x: torch.Tensor, samples: Any) -> torch.Tensor:
        return x.square().sum(-1)

    got = Learner(policy).grads(Term(rollout, path_gradient, want=(PathValue(value, last=last),)))
    states, index = rollout.inputs["states"], torch.zeros(4, dtype=torch.long)
    times, first = policy.process.times(5), max(0, 5 - last)
    x = states[:, first]
    for i in range(first, 5):
        output = policy.module(x, times[index + i], rollout.inputs["condition"])
        mean, std = policy.process.step(x, output, index + i, 5, 1.0)
        noise = torch.where(std > 0, (states[:, i + 1] - mean.detach()) / std.clamp(min=1e-9), 0.0)
        x = mean + std * noise
    torch.testing.assert_close(x, states[:, -1], atol=1e-4, rtol=1e-4)
    want = torch.autograd.grad(-value(x, None).mean(), list(policy.module.parameters()))
    torch.testing.assert_close(list(got.values()), list(want), atol=1e-5, rtol=1e-3)


def test_backpropagation_raises_a_differentiable_reward(policy: DiffusionPolicy) -> None:
    learner, found = Learner(policy, lr=1e-2), []
    for step in range(20):
        rollout = policy.sample(PROMPTS, 8, sampling=Denoise(5), seed=step)
        term = Term(rollout, path_gradient, want=(PathValue(lambda x, samples: x[:, 0], last=5),))
        found.append(learner.step(term)["path_gradient/value"])
    assert sum(found[-5:]) > sum(found[:5])
    with pytest.raises(ValueError, match="not encoded"):
        learner.grads(Term(policy.encode(rollout.samples), path_gradient, want=term.want))


@pytest.mark.parametrize(
    "how",
    [Denoise(6), Denoise(6, eta=0.5, guidance=2.0), Denoise(4, eta=0.0), Denoise(6, stop=3), Denoise(1)],
)
def test_the_samplers_own_log_probs_are_those_of_evaluate_and_cost_no_second_pass(
    policy: DiffusionPolicy, how: Denoise
) -> None:
    calls: list[int] = []
    policy.module.register_forward_hook(lambda *_: calls.append(1))
    rollout = policy.sample(PROMPTS, 3, sampling=how, seed=1)
    assert len(rollout) * len(calls) == rollout.cost.calls
    parts = [rollout]
    if how.stop is not None:
        with pytest.raises(ValueError, match="stopped before step 3"):
            policy.evaluate(rollout, (PathValue(lambda x, samples: x[:, 0], last=2),))
        parts.append(policy.sample(rollout.samples, 2, sampling=Denoise(6), seed=2))
    for part in parts:
        want = policy.evaluate(part)["logps"].detach()
        assert part["old_logps"].dtype == want.dtype == part.mask.dtype
        torch.testing.assert_close(part["old_logps"], want, atol=1e-4, rtol=1e-5)
        assert not part["old_logps"][part.mask == 0].any()


def test_sampling_is_without_dropout(policy: DiffusionPolicy) -> None:
    policy.module.layers[0].append(nn.Dropout(0.5))  # type: ignore[index,union-attr,operator]
    policy.module.train()
    one, two = (policy.sample(PROMPTS, 2, sampling=Denoise(4), seed=3) for _ in range(2))
    assert torch.equal(one.inputs["states"], two.inputs["states"])
    assert policy.module.training


def test_prompts_that_differ_in_the_middle_of_a_picture_are_told_apart() -> None:
    """Torch prints three numbers from each end."""
    net = PointNet(2, 1, width=8, depth=1)
    policy = DiffusionPolicy(net, Flow(), (2,), condition=lambda p: p["picture"].sum()[None])
    pictures = [torch.zeros(40, 40), torch.zeros(40, 40), torch.zeros(40, 40)]
    pictures[1][20, 20] = 1.0
    rollout = policy.encode([Sample({"picture": x, "text": "a"}, torch.zeros(2)) for x in pictures])
    assert rollout.inputs["condition"].flatten().tolist() == [0.0, 1.0, 0.0]
    assert torch.equal(rollout.inputs["noise"][0], rollout.inputs["noise"][2])
    assert not torch.equal(rollout.inputs["noise"][0], rollout.inputs["noise"][1])


def test_no_two_frozen_copies_have_one_version(policy: DiffusionPolicy) -> None:
    """Also where a copy stands in the memory of one that is gone."""
    assert len({policy.keep("old").version for _ in range(20)}) == 20
