"""Partial outputs are continued, and forks share what came before without training it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rewardkit.credit.group import group_relative
from rewardkit.loops.online import online
from rewardkit.loops.prompts import PromptSet
from rewardkit.objectives.path import path_gradient
from rewardkit.objectives.policy import clipped
from rewardkit.policies.diffusion import Denoise, Diffusion, DiffusionPolicy, Flow, Forked, Latent, PathValue, PointNet
from rewardkit.protocols import Policy
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Rollout, Sample, Scores


@pytest.fixture(params=["diffusion", "flow"])
def policy(request: pytest.FixtureRequest) -> DiffusionPolicy:
    torch.manual_seed(0)
    process = Diffusion.cosine(50) if request.param == "diffusion" else Flow()
    net = PointNet(2, 1, width=16, depth=1, scale=50.0 if request.param == "diffusion" else 1.0)
    return DiffusionPolicy(net, process, (2,), condition=lambda p: torch.ones(1) * len(p))


def test_a_path_that_was_stopped_goes_on_where_it_stood(policy: DiffusionPolicy) -> None:
    part = policy.sample(["a", "bb"], 1, sampling=Denoise(6, stop=4), seed=0)
    assert [s.ended for s in part.samples] == ["cut", "cut"]
    assert part.mask.tolist() == [[1, 1, 1, 1, 0, 0]] * 2
    assert part.cost.calls == 8
    whole = policy.sample(part.samples, 1, sampling=Denoise(6), seed=1)
    assert whole.mask.tolist() == [[0, 0, 0, 0, 1, 0]] * 2
    assert torch.equal(whole.inputs["states"][:, 4], part.inputs["states"][:, 4])
    assert torch.equal(torch.stack([s.output for s in whole.samples]), whole.inputs["states"][:, -1])
    assert [s.ended for s in whole.samples] == ["done", "done"]
    assert whole.parent is None
    assert not whole["old_logps"][:, :4].any()


def test_a_stop_at_the_end_is_the_whole_path(policy: DiffusionPolicy) -> None:
    a, b = (policy.sample(["a"], 2, sampling=Denoise(3, stop=stop), seed=0) for stop in (3, None))
    assert torch.equal(a.inputs["states"], b.inputs["states"])
    assert isinstance(a.samples[0].output, torch.Tensor)


def test_a_fork_has_the_density_that_the_whole_path_had_there(policy: DiffusionPolicy) -> None:
    whole = policy.sample(["a"], 1, sampling=Denoise(5), seed=0)
    states = whole.inputs["states"]
    forked = policy.sample([Sample("a", Latent(states[0, 2], 2), ended="cut")], 3, sampling=Denoise(5), seed=1)
    assert forked.parent is not None
    assert forked.start is not None
    assert forked.parent.tolist() == [-1, 0, 0]
    assert forked.start.tolist() == [-1, 2, 2]
    assert forked.inputs["states"].shape == (3, 6, 2)
    assert len({tuple(s.output.tolist()) for s in forked.samples}) == 3
    copied = Rollout(whole.samples, forked.mask[:1], inputs=whole.inputs, how=whole.how)
    torch.testing.assert_close(policy.evaluate(copied)["logps"][:, 2:], whole["old_logps"][:, 2:])


def test_gradients_do_not_flow_through_what_was_shared(policy: DiffusionPolicy) -> None:
    latent = Sample("a", Latent(torch.randn(2), 3), ended="cut")
    rollout = policy.sample([latent], 2, sampling=Denoise(5), seed=1)

    def first(x: torch.Tensor, samples: Any) -> torch.Tensor:
        return x[:, 0]

    few, all_ = (Learner(policy).grads(Term(rollout, path_gradient, want=(PathValue(first, last=n),))) for n in (2, 5))
    for name, grad in few.items():
        torch.testing.assert_close(grad, all_[name])


def test_rows_that_cannot_go_on_together_are_named(policy: DiffusionPolicy) -> None:
    rows = [Sample("a", Latent(torch.zeros(2), i), ended="cut") for i in (1, 2)]
    for start in (rows, [rows[0], Sample("a")], [Sample("a", Latent(torch.zeros(2), 9), ended="cut")]):
        with pytest.raises(ValueError, match="continued from one step"):
            policy.sample(start, 1, sampling=Denoise(5))
    with pytest.raises(ValueError, match="between 0 and the 5"):
        Denoise(5, stop=6)


class First:
    name, scope = "first", "sample"

    def __call__(self, rollout: Rollout, ctx: Any = None) -> Scores:
        return Scores(torch.stack([s.output[0] for s in rollout.samples]))


def test_the_one_loop_trains_what_follows_a_fork(policy: DiffusionPolicy) -> None:
    forked = Forked(policy, after=3)
    assert isinstance(forked, Policy)
    run = online(
        Learner(forked, lr=1e-2), PromptSet(["a", "bb"]), First(), group_relative, clipped, reference="start", n=16,
        batch=4, steps=30, sampling=Denoise(6), seed=0,
    )  # fmt: skip
    found = []
    for turn in run:
        assert not turn.rollout.mask[:, : forked.after].any()
        found.append(turn.metrics)
        forked.after = 3 if turn.step < 15 else 1
    assert found[0]["clipped/ratio"] == pytest.approx(1.0, abs=1e-4)
    assert sum(m["reward"] for m in found[-5:]) > sum(m["reward"] for m in found[:5])
    assert turn.rollout.cost.calls == 4 * 1 + 64 * 5
    with pytest.raises(ValueError, match="not to be fewer"):
        Forked(policy, after=-1)


def test_the_noise_of_branches_is_not_that_of_what_they_share(policy: DiffusionPolicy) -> None:
    forked = Forked(policy, after=1).sample(["a"] * 500, 1, sampling=Denoise(4), seed=7)
    with torch.no_grad():
        first = policy.start(["a"] * 500, sampling=Denoise(4), seed=7)
        mean, std = policy.transition(policy.step(first, forked.inputs["states"][:, 1]))
    z = (forked.inputs["states"][:, 2] - mean) / std
    assert abs(float((z * first.x).mean())) < 0.2
    with pytest.raises(ValueError, match="nothing would follow"):
        Forked(policy, after=4).sample(["a"], 2, sampling=Denoise(4))
