"""A whole training run as a reward: how much a student learns from what a teacher made."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import torch

from rewardkit.registry import entry
from rewardkit.rewards.base import RewardBase
from rewardkit.training.learner import Learner
from rewardkit.types import Rollout, Sample, Scores

Teach = Callable[[Learner, Sample, int], None]
Examine = Callable[[Any], float]


@entry(
    "loops:learning_progress",
    aliases=("loops:teacher_student_meta_rl", "rewards.compose:learning_progress"),
    tags=("curriculum", "live", "nested"),
    source="SOAR: arXiv:2601.18778, section 3",
)
class LearningProgress(RewardBase):
    """Examination after a training run on a row's material, less that of the student as it was.

    For each row the student is forked (weights, optimiser, views), the fork is taught and examined, and thrown away:
    the student itself never moves while candidates are compared. After a turn of the teacher's loop, if the mean
    reward over the last ``window`` turns is above ``threshold``, the turn's best fork becomes the student, and its
    material is kept.

    Args:
        student: the present baseline. teach: ``(learner, row, seed)`` trains the learner in place, for instance by
            ``online``; rows of one turn get the same seed. examine: the policy's figure on questions that are neither
            taught nor used for the final test.
        threshold, window: of promotion.

    >>> from rewardkit.policies.table import TablePolicy
    >>> student = Learner(TablePolicy(["x"], ["a", "b"]), lr=0.1)
    >>> def teach(learner, row, seed):
    ...     with torch.no_grad():
    ...         learner.model.module.logits[..., 1] += float(row.output)
    >>> progress = LearningProgress(student, teach, lambda p: float(p.enumerate("x")[1][1].detach()))
    >>> rows = Rollout([Sample("t", "0"), Sample("t", "9")], torch.ones(2, 1))
    >>> [round(v, 2) for v in progress(rows).outcome.tolist()], round(progress.base, 2)
    ([0.0, 0.5], 0.5)
    """

    name = "learning_progress"

    def __init__(
        self, student: Learner, teach: Teach, examine: Examine, *, threshold: float = 0.01, window: int = 3
    ) -> None:
        self.student, self.teach, self.examine = student, teach, examine
        self.threshold, self.recent = threshold, deque[float](maxlen=window)
        self.base = examine(student.model)
        self.promoted: list[Sample] = []
        self._best: tuple[float, Learner, Sample] | None = None

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        """Every row alike: the same start, the same seed, the same examination."""
        seed = int((ctx or {}).get("step", 0))
        gains = []
        self._best = None
        for sample in rollout.samples:
            fork = self.student.fork()
            self.teach(fork, sample, seed)
            gains.append(self.examine(fork.model) - self.base)
            if self._best is None or gains[-1] > self._best[0]:
                self._best = gains[-1], fork, sample
        return Scores(torch.tensor(gains, device=rollout.mask.device))

    def update(self, rollout: Rollout, scores: Scores, **progress: Any) -> None:
        """Promote the best fork where learning goes on."""
        if scores.outcome is None or self._best is None:
            return
        self.recent.append(float(scores.outcome[scores.ok].mean()))
        gain, fork, material = self._best
        full = len(self.recent) == self.recent.maxlen
        if full and sum(self.recent) / len(self.recent) > self.threshold and gain > 0:
            self.student.load_state_dict(fork.state_dict())
            self.base = self.examine(self.student.model)
            self.promoted.append(material)
            self.recent.clear()
        self._best = None

    def state_dict(self) -> dict[str, Any]:
        """The student as it was promoted, with what decides the next promotion."""
        kept = {"student": self.student.state_dict(), "base": self.base}
        rows = [(s.prompt, s.output, s.source, dict(s.hidden), s.ended) for s in self.promoted]
        return kept | {"recent": list(self.recent), "promoted": rows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self.student.load_state_dict(state["student"])
        self.base, self.promoted = state["base"], [Sample(*row) for row in state["promoted"]]
        self.recent.clear()
        self.recent.extend(state["recent"])
        self._best = None
