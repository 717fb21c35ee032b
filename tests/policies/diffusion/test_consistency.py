"""Consistency models: finite densities, ratios of 1, one answer along a path, in the same policy and the same loop."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.distributions import Independent, Normal

from rewardkit.credit.group import group_relative
from rewardkit.loops.online import online
from rewardkit.loops.prompts import PromptSet
from rewardkit.objectives.imitation import sft
from rewardkit.objectives.policy import clipped
from rewardkit.policies.diffusion import (
    Consistency,
    Denoise,
    Diffusion,
    DiffusionPolicy,
    Distilled,
    Flow,
    PointNet,
    consistency_model,
    follow,
)
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Rollout, Sample, Scores


def policy(process: Any = None) -> DiffusionPolicy:
    torch.manual_seed(0)
    process = process or Flow()
    return DiffusionPolicy(
        PointNet(2, width=32, depth=2, scale=1.0 if isinstance(process, Flow) else 50.0), process, (2,)
    )


@pytest.fixture(params=["flow", "diffusion"])
def student(request: pytest.FixtureRequest) -> DiffusionPolicy:
    if request.param == "flow":
        return consistency_model(policy(), top=1.0)
    return consistency_model(policy(Diffusion.cosine(50, "v_prediction")), top=49.0)


def test_every_jump_has_a_finite_density_the_last_one_too(student: DiffusionPolicy) -> None:
    rollout = student.sample([None], 4, sampling=Denoise(3), seed=0)
    assert rollout.mask.tolist() == [[1, 1, 1]] * 4
    assert torch.isfinite(rollout["old_logps"]).all()
    states, times = rollout.inputs["states"], student.process.times(3)
    down = [*times.tolist(), None]
    with torch.no_grad():
        for i in range(3):
            time = times[i].expand(4)
            clean, _ = student.process.parts(states[:, i], student.module(states[:, i], time), time)
            a, b = (1.0, 0.03) if i == 2 else (float(x) for x in student.process.scales(torch.tensor(down[i + 1])))
            want = Independent(Normal(a * clean, b), 1).log_prob(states[:, i + 1])
            torch.testing.assert_close(rollout["old_logps"][:, i], want, rtol=1e-4, atol=1e-4)


def test_in_coordinates_of_growing_noise_it_is_the_published_sampler() -> None:
    """``x / a`` of a flow is ``clean + tau z`` with ``tau = s / (1 - s)``: jumps to ``f + tau' z``."""
    process = Consistency(Flow(), top=0.9)
    x, output = torch.randn(5, 2), torch.randn(5, 2)
    mean, std = process.step(x, output, torch.zeros(5, dtype=torch.long), 3, 1.0)
    s, s_next = 0.9, 0.6
    torch.testing.assert_close(mean / (1 - s_next), x - s * output)
    torch.testing.assert_close((std / (1 - s_next)).flatten(), torch.full((5,), s_next / (1 - s_next)))


class First:
    name, scope = "first", "sample"

    def __call__(self, rollout: Rollout, ctx: Any = None) -> Scores:
        return Scores(torch.stack([s.output[0] for s in rollout.samples]))


def test_the_one_loop_trains_it_and_ratios_begin_at_1(student: DiffusionPolicy) -> None:
    run = online(
        Learner(student, lr=3e-3), PromptSet([None]), First(), group_relative, clipped, reference="start", n=64,
        batch=1, steps=20, sampling=Denoise(2), seed=0,
    )  # fmt: skip
    found = []
    for turn in run:
        if turn.step == 1:
            ratio = (turn.rollout["start_logps"] - turn.rollout["old_logps"]).exp()
            torch.testing.assert_close(ratio, torch.ones_like(ratio), atol=1e-4, rtol=0)
        found.append(turn.metrics)
    assert found[0]["clipped/ratio"] == pytest.approx(1.0, abs=1e-4)
    assert sum(m["reward"] for m in found[-5:]) > sum(m["reward"] for m in found[:5]) + 0.1


def test_the_target_of_the_lowest_time_is_the_teachers_step_itself() -> None:
    teacher = policy()
    student = consistency_model(teacher, top=1.0)
    rows = Distilled(student, teacher, steps=1, draws=2)(
        [Sample(None, torch.ones(2))], torch.Generator().manual_seed(0)
    )
    x, _ = student.process.noised(rows.inputs["clean"], rows.inputs["noise"][:, 0], rows.inputs["times"][:, 0])
    want = x - teacher.module(x, torch.ones(2))
    torch.testing.assert_close(rows.inputs["clean"], want.detach())


def test_a_student_that_answers_alike_along_each_path_has_no_loss() -> None:
    """Data at one point ``m``: the flow ``(x - m) / s`` leads straight there, and is its own consistency model."""

    class Straight(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.m = torch.nn.Parameter(torch.tensor([1.0, -2.0]))

        def forward(self, x: torch.Tensor, time: torch.Tensor, condition: Any = None) -> torch.Tensor:
            return (x - self.m) / time.clamp(min=1e-6)[:, None]

    teacher = DiffusionPolicy(Straight(), Flow(), (2,))
    student = consistency_model(teacher, top=1.0)
    rows = Distilled(student, teacher, steps=10, draws=20)([Sample(None, torch.tensor([1.0, -2.0]))])
    assert student.evaluate(rows)["logps"].abs().max() < 1e-6
    with torch.no_grad():
        student.module.m += 1
    assert student.evaluate(rows)["logps"].max() < -1e-2


def test_distillation_is_sft_and_the_student_makes_in_one_jump_what_the_teacher_makes_in_many() -> None:
    data = [Sample(None, x) for x in 0.2 * torch.randn(512, 2) + torch.tensor([1.5, -0.5])]
    teacher = policy()
    learner = Learner(teacher, lr=3e-3)
    for step in range(200):
        learner.step(Term(teacher.encode(data[step % 8 * 64 :][:64]), sft))
    student = consistency_model(teacher, top=1.0)
    learner, chance = Learner(student, lr=1e-3), torch.Generator().manual_seed(0)
    rows = Distilled(student, teacher, steps=10)
    before = student.at("target").module.last.bias.clone()
    for step in range(250):
        learner.step(Term(rows(data[step % 8 * 64 :][:64], chance), sft))
        follow(student, 0.05)
    assert not torch.equal(student.at("target").module.last.bias, before)
    assert not torch.equal(student.at("target").module.last.bias, student.module.last.bias)

    def error(own: DiffusionPolicy) -> float:
        points = torch.stack([s.output for s in own.sample([None], 400, sampling=Denoise(1), seed=3).samples])
        return float((points - torch.tensor([1.5, -0.5])).square().sum(-1).mean() - 2 * 0.2**2)

    assert abs(error(student)) < 0.08


def test_odd_requests_are_named() -> None:
    with pytest.raises(ValueError, match="above 0"):
        Consistency(Flow(), top=1.0, last=0.0)
    with pytest.raises(ValueError, match="eta=1"):
        consistency_model(policy(), top=1.0).sample([None], sampling=Denoise(2, eta=0.5))
    with pytest.raises(ValueError, match="must be Consistency"):
        Distilled(policy(), policy())([Sample(None, torch.zeros(2))])
