"""The distilled base: built once, its own start, and data in few jumps where its teacher needs many steps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rewardkit.policies.diffusion import Consistency, Denoise
from rewardkit.worlds.gaussians import Gaussians, distilled
from rewardkit.worlds.gaussians.distilled import BATCH, DRAWS, calls, consistency_policy

WORLD = Gaussians(2)


def test_it_is_built_once_and_is_its_own_start(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = consistency_policy(WORLD, steps=3, teacher_steps=3)
    teacher = WORLD.base_policy("flow", steps=3)
    monkeypatch.setattr(distilled, "_distil", None)
    again = consistency_policy(WORLD, steps=3, teacher_steps=3)
    for a, b, c in zip(*(p.module.parameters() for p in (policy, again, teacher)), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
    assert isinstance(policy.process, Consistency)
    rollout = again.sample(WORLD.prompts, 3, sampling=Denoise(2), seed=0)
    assert rollout.mask.tolist() == [[1.0, 1.0]] * 6
    torch.testing.assert_close(again.at("start").evaluate(rollout)["logps"], rollout["old_logps"])
    with pytest.raises(TypeError, match="NoneType"):
        consistency_policy(WORLD, steps=4, teacher_steps=3)


def test_one_jump_of_it_makes_what_one_step_of_its_teacher_does_not(cache: Path) -> None:
    how = {"steps": 150, "teacher_steps": 400}
    policy, teacher = consistency_policy(WORLD, **how), WORLD.base_policy("flow", steps=400)

    def likelihood(own, steps: int) -> float:
        drawn = own.sample(WORLD.prompts, 300, sampling=Denoise(steps), seed=0).samples
        found = [WORLD.data[p].log_prob(torch.stack([s.output for s in drawn if s.prompt == p])) for p in WORLD.prompts]
        return float(torch.cat(found).mean())

    # One step of a flow ends at the mean of all modes, where there are hardly any data.
    assert likelihood(policy, 1) > likelihood(teacher, 1) + 1
    assert likelihood(policy, 2) > likelihood(teacher, 2) + 0.5


def test_calls_are_counted_by_teacher_target_and_student(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, seen = WORLD.policy("flow"), []
    forward = type(teacher.module).forward

    def counted(self, x, *given):
        seen.append(len(x))
        return forward(self, x, *given)

    monkeypatch.setattr(type(teacher.module), "forward", counted)
    distilled._distil(WORLD, teacher, 2)
    assert sum(seen) == calls(2) == 6 * BATCH * DRAWS
