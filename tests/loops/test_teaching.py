"""A training run as a reward: candidates are compared from the same start, and the student moves by promotion alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rewardkit.credit.group import rloo
from rewardkit.loops.online import online
from rewardkit.loops.prompts import PromptSet
from rewardkit.loops.teaching import LearningProgress
from rewardkit.objectives.policy import reinforce
from rewardkit.policies.table import TablePolicy
from rewardkit.rewards.rules.text import ExactMatch
from rewardkit.training.checkpoint import Checkpoints
from rewardkit.training.learner import Learner
from rewardkit.types import Rollout, Sample


def teach(learner: Learner, row: Sample, seed: int) -> None:
    """Three turns towards the answer that the teacher chose, right or wrong."""
    prompts = PromptSet([Sample("x", hidden={"answer": row.output})])
    for _ in online(learner, prompts, ExactMatch(), rloo, reinforce, reference=None, steps=3, n=8, batch=1, seed=seed):
        pass


def examine(policy: Any) -> float:
    """The probability of the right answer."""
    return float(policy.enumerate("x")[1][1].detach())


def progress(**options: Any) -> LearningProgress:
    return LearningProgress(Learner(TablePolicy(["x"], ["a", "b"]), lr=0.1), teach, examine, **options)


def rows(*outputs: str) -> Rollout:
    return Rollout([Sample("t", o) for o in outputs], torch.ones(len(outputs), 1))


def test_the_student_does_not_move_between_candidates() -> None:
    reward = progress()
    before = {k: v.clone() for k, v in reward.student.state_dict()["weights"].items()}
    first = reward(rows("b", "a", "b")).outcome
    assert first[0] == first[2] > 0 > first[1]
    assert torch.equal(reward(rows("a", "b")).outcome, first[[1, 0]])
    after = reward.student.state_dict()["weights"]
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_the_best_candidate_is_promoted_once_learning_goes_on() -> None:
    reward = progress(threshold=0.01, window=2)
    batch = rows("b", "b", "a")
    for turn in range(2):
        scores = reward(batch, {"step": turn})
        assert (len(reward.promoted), reward.base) == (0, 0.5)
        reward.update(batch, scores, step=turn)
    assert [s.output for s in reward.promoted] == ["b"]
    assert reward.base == pytest.approx(0.5 + float(scores.outcome.max()), abs=1e-6)
    assert examine(reward.student.model) == reward.base


def test_harmful_material_is_never_promoted() -> None:
    reward = progress(threshold=-1.0, window=1)
    batch = rows("a", "a")
    reward.update(batch, reward(batch), step=1)
    assert reward.promoted == []
    assert examine(reward.student.model) == 0.5


def test_what_was_promoted_survives_a_checkpoint(tmp_path: Path) -> None:
    """A run that is resumed teaches the student that was promoted, not the one that it was made with."""

    def turns(steps: int) -> LearningProgress:
        reward = progress(threshold=0.0, window=1)
        teacher = Learner(TablePolicy(["teach"], ["a", "b"]), lr=0.3)
        kept = Checkpoints(tmp_path / "run", every=1)
        for _ in online(
            teacher, PromptSet(["teach"]), reward, rloo, reinforce, reference=None, steps=steps, n=4, batch=1,
            checkpoint=kept,
        ):  # fmt: skip
            pass
        return reward

    first = turns(3)
    assert first.promoted
    again = turns(3)
    assert again.promoted == first.promoted
    assert again.base == examine(again.student.model) == first.base > 0.5


def test_a_teacher_learns_what_its_student_needs() -> None:
    reward = progress()
    teacher = Learner(TablePolicy(["teach"], ["a", "b"]), lr=0.3)
    for _ in online(teacher, PromptSet(["teach"]), reward, rloo, reinforce, reference=None, steps=8, n=4, batch=1):
        pass
    assert float(teacher.model.enumerate("teach")[1][1].detach()) > 0.7
    assert reward.base > 0.5
