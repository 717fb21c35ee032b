"""SOAR: a teacher whose reward is what a student that trains on its questions gains on those too hard for it.

On world ``arithmetic``, a student that has seen chains of one and two operations; hard are chains of four. A teacher,
a table over depth and operators, writes material of four templates; for each of four candidates a turn the student is
forked, trained by ten turns of RLOO on chains of those templates, and examined on hard training chains; the gain is
the candidate's reward, and the teacher learns by RLOO. Once its average over three turns is above 0.01, the best fork
becomes the student. Afterwards every arm trains a fresh student for 60 turns, the last 20 on hard chains: SOAR on the
promoted material, the others on that of a random teacher, of one rewarded by ``p (1 - p)`` of the student
(learnability), or on hard chains throughout. Test chains are held out from all of this. Left out: questions and
answers that a language model writes and that may be wrong, greedy examination, 200 outer steps. SOAR's own search
costs more than the rest; the final training is equal. About four minutes on one core.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from rewardkit.credit.group import rloo
from rewardkit.loops.online import online
from rewardkit.loops.prompts import PromptSet
from rewardkit.loops.teaching import LearningProgress
from rewardkit.objectives.policy import clipped
from rewardkit.papers.arithmetic import Figures, base, figures
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.policies.table import TablePolicy
from rewardkit.rewards.base import RewardBase
from rewardkit.training.learner import Learner
from rewardkit.types import Rollout, Sample, Scores
from rewardkit.worlds.arithmetic import Arithmetic, chain_of, held_out

WORLD = Arithmetic((4,), longest=2)
TEMPLATES = [f"{depth}{signs}" for depth in (1, 2, 3, 4) for signs in ("+-", "+-*")]
TURNS, FINAL, ON_HARD = 12, 60, 20
LR = 3e-4


def questions(material: Sequence[str], n: int, seed: int) -> list[Sample]:
    """``n`` chains of these templates in turn, none of them for testing."""
    rng = np.random.default_rng(seed)
    found: list[Sample] = []
    while len(found) < n:
        template = material[len(found) % len(material)]
        chain = chain_of(int(template[0]), rng, template[1:])
        if not held_out(chain):
            found.append(Sample(chain))
    return found


def study(run: Run, learner: Learner, prompts: Sequence[Sample], turns: int, seed: int) -> None:
    """``turns`` of RLOO on verified answers, in place."""
    for _ in online(
        learner, PromptSet(prompts, seed=seed), WORLD.gold, rloo, clipped, reference=None, steps=turns,
        batch=run.size(8, 1), n=run.size(8, 2), sampling=WORLD.sampling, seed=seed,
    ):  # fmt: skip
        pass


def hard(run: Run) -> list[Sample]:
    """Chains of four operations for training and for the teacher's examinations."""
    return WORLD.prompts(run.size(64, 2), 70)


class Learnability(RewardBase):
    """``p (1 - p)`` of a student, a mean over questions of the material: the reward without any training."""

    name = "learnability"

    def __init__(self, run: Run, student: Any) -> None:
        self.run, self.student = run, student

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        values = []
        for sample in rollout.samples:
            asked = questions(sample.output, self.run.size(16, 4), int((ctx or {}).get("step", 0)))
            tried = self.student.sample(asked, 4, sampling=WORLD.sampling, seed=0)
            share = WORLD.gold(tried).outcome.view(-1, 4).mean(1)  # type: ignore[union-attr]
            values.append(float((share * (1 - share)).mean()))
        return Scores(torch.tensor(values))


def teacher(run: Run, reward: RewardBase) -> list[list[tuple[str, ...]]]:
    """A teacher trained by RLOO against a reward; the material of every turn."""
    policy = TablePolicy(["teach"], TEMPLATES, horizon=4)
    turns = online(
        Learner(policy, lr=0.2), PromptSet(["teach"]), reward, rloo, clipped, reference=None,
        steps=run.size(TURNS, 1), n=run.size(4, 2), batch=1, seed=run.seed,
    )  # fmt: skip
    return [[s.output for s in turn.rollout.samples] for turn in turns]


def soar(run: Run) -> Figures:
    """The student's progress is the teacher's reward."""
    examined = hard(run)

    def teach(learner: Learner, row: Sample, seed: int) -> None:
        own = 1000 * run.seed + seed
        study(run, learner, questions(row.output, run.size(32, 1), own), run.size(10, 1), own)

    def examine(policy: Any) -> float:
        tried = policy.sample(examined, run.size(4, 1), sampling=WORLD.sampling, seed=0)
        return float(WORLD.gold(tried).outcome.mean())  # type: ignore[union-attr]

    progress = LearningProgress(Learner(base(WORLD, run), lr=LR), teach, examine)
    written = teacher(run, progress)
    return _final(run, [s.output for s in progress.promoted], written) | {"promoted": float(len(progress.promoted))}


def intrinsic(run: Run) -> Figures:
    """Learnability is the teacher's reward."""
    written = teacher(run, Learnability(run, base(WORLD, run)))
    return _final(run, [rows[0] for rows in written[-4:]], written)


def at_random(run: Run) -> Figures:
    """A teacher that never learns."""
    rng = np.random.default_rng(run.seed)
    written = [[tuple(rng.choice(TEMPLATES, size=4)) for _ in range(4)] for _ in range(TURNS)]
    return _final(run, [rows[0] for rows in written[-4:]], written)


def direct(run: Run) -> Figures:
    """Hard chains from the beginning."""
    return _final(run, [], [])


def _final(run: Run, material: Sequence[Sequence[str]], written: list[list[tuple[str, ...]]]) -> Figures:
    """A fresh student: its material in order, in equal shares of the turns, then hard chains."""
    learner = Learner(base(WORLD, run), lr=LR)
    easy = run.size(FINAL - ON_HARD, 1) if material else 0
    for i, one in enumerate(material):
        turns = easy * (i + 1) // len(material) - easy * i // len(material)
        own = 1000 * run.seed + i
        study(run, learner, questions(one, run.size(64, 1), own), turns, own)
    study(run, learner, hard(run), run.size(FINAL, 1) - easy, run.seed)
    depths = [float(np.mean([int(t[0]) for row in rows for t in row])) for rows in written]
    late = [t for rows in written[-4:] for row in rows for t in row]
    third = max(1, len(depths) // 3)
    return {
        **figures(run, WORLD, learner.model, [], k=8),  # type: ignore[arg-type]
        "rise": float(np.mean(depths[-third:]) - np.mean(depths[:third])) if depths else float("nan"),
        "templates": float(len(set(late))),
        "depth by turn": depths,
    }


RECIPE = Recipe(
    slug="soar_teacher",
    arms={
        "soar": Arm(soar, tuned=False),
        "intrinsic": Arm(intrinsic, tuned=False),
        "random teacher": Arm(at_random, tuned=False),
        "direct": Arm(direct, tuned=False),
        "start": Arm(lambda run: figures(run, WORLD, base(WORLD, run), [], k=8), tuned=False),
    },
    expectations=[
        Expect("hard chains are almost never solved at the start", "gold", "start", high=0.05),
        Expect("training on hard chains alone stays near 0", "gold", "direct", high=0.05),
        Expect("SOAR's student passes more than the direct one", "pass@k", "soar", "direct", low=0),
        Expect("SOAR's student passes more than a random teacher's", "pass@k", "soar", "random teacher", low=0),
        Expect("SOAR's student passes more than the intrinsic teacher's", "pass@k", "soar", "intrinsic", low=0),
        Expect("SOAR's teacher moves to deeper chains", "rise", "soar", low=0),
        Expect("SOAR's teacher keeps more templates than the intrinsic one", "templates", "soar", "intrinsic", low=0),
    ],
    scale="a 56,000-weight student, four operations as hard, a table as teacher, 12 turns of 4 candidates, pass@8",
)
