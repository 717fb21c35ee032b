"""ICPL: someone names the best and the worst of six policies, and a writer of reward programs is told.

Gridworlds with mud, a pit and a goal, whose true reward also cares for rows and columns; nobody but the annotator knows
it. A writer proposes six reward programs a round, a policy is planned on each, and an annotator who sees the true
return with some error names the best and the worst, the best so far among them: ten answers in five rounds. The next
request holds both programs, what their components came to during planning, and the programs that were best before.
The writer is no language model but a stand-in that reads the same text and mutates at random; any callable from text
to text takes its place. Programs are expressions that an interpreter of ours computes; nothing is executed. Compared
with programs drawn at random, with requests that leave out history and traces, with linear rewards fitted to 15 and
1,000 comparisons of segments, and with an annotator who lies. Left out: language models, people, IsaacGym, policies by
PPO (they are planned exactly), comparisons that learn while the policy does.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from rewardkit.data.rows import attach, comparison_rows
from rewardkit.feedback.best_worst import SimulatedBestWorst
from rewardkit.loops.icpl import Tried, icpl
from rewardkit.objectives.reward import bradley_terry
from rewardkit.papers.program_writer import Mutator
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.rewards.learned.program import ProgramReward
from rewardkit.rewards.learned.segments import SegmentReward
from rewardkit.training.fit import fit
from rewardkit.training.learner import Learner
from rewardkit.types import Judgement
from rewardkit.worlds.tables.grids import GridWorld
from rewardkit.worlds.tables.mdp import greedy

NAMES = ("floor", "mud", "goal", "pit", "row", "column")
STAGES = (1, 4, 16)
"""Sweeps of value iteration after which a component's total is told, before the last one of the finished plan."""


class Task:
    """One gridworld with its hidden reward."""

    def __init__(self, number: int) -> None:
        self.world = GridWorld(5, seed=number, slip=0.1)
        size, kinds = self.world.size, self.world.features
        cells = torch.arange(size * size, dtype=torch.float64)
        places = torch.stack([cells // size, cells % size], -1) / (size - 1)
        self.features = torch.cat([kinds, self.world.entered @ places], -1)
        chance = np.random.default_rng(number)
        kinds_weight = np.array([-0.5, -3.0, 5.0, -5.0]) * chance.uniform(0.3, 1, 4)
        self.truth = self.features @ torch.from_numpy(np.concatenate([kinds_weight, chance.uniform(-1.5, 1.5, 2)]))
        uniform = torch.full_like(self.truth, 0.25)
        best = greedy(self.world.mdp.optimal(self.truth))
        self.low, self.high = (float(self.world.mdp.performance(p, self.truth)) for p in (uniform, best))

    def gold(self, policy: Tensor) -> float:
        """The true return, 0 a random policy and 1 the best."""
        return (float(self.world.mdp.performance(policy, self.truth)) - self.low) / (self.high - self.low)

    def seen(self, tried: Tried[Tensor]) -> float:
        """What the annotator goes by: the true return of what a policy does, never its program."""
        return self.gold(tried.policy)

    def train(self, program: str) -> Tried[Tensor]:
        """The plan on a program, with the totals of its components on the way."""
        reward = ProgramReward(program, self.features, NAMES)
        policies, values = [], torch.zeros_like(reward.table)
        for begin, end in pairwise((0, *STAGES)):
            for _ in range(end - begin):
                values = self.world.mdp.ahead(reward.table, values.amax(1))
            policies.append(greedy(values))
        policies.append(greedy(self.world.mdp.optimal(reward.table, tolerance=1e-6)))
        parts = [t(reward.by_name) for t in reward.program.terms()]
        traces = {
            f"{i} {t}": [float(self.world.mdp.performance(p, part)) for p in policies]
            for i, (t, part) in enumerate(zip(reward.program.terms(), parts, strict=True))
        }
        return Tried(program, policies[-1], traces)


def search(run: Run, *, deaf: bool = False, told: bool = True, inverted: bool = False) -> dict[str, float]:
    """ICPL, or programs drawn at random, on several tasks: gold at the end and after the first round, and answers."""
    found: dict[str, list[float]] = {"gold": [], "first": [], "answers": []}
    for number in _numbers(run):
        task = Task(number)
        ask = SimulatedBestWorst(task.seen, noise=0.05, inverted=inverted, seed=number)
        turns = list(
            icpl(
                f"features: {', '.join(NAMES)}", Mutator(NAMES, seed=number, deaf=deaf), task.train, ask,
                k=run.size(6, 2), rounds=run.size(5, 2), history=told, traces=told,
            )
        )  # fmt: skip
        found["gold"].append(task.gold(turns[-1].best.item.policy))
        found["first"].append(float(np.mean([task.gold(n.item.policy) for n in turns[0].tried])))
        found["answers"].append(ask.answers)
    return {k: float(np.mean(v)) for k, v in found.items()}


def _compared(task: Task, n: int, seed: int) -> list[Judgement]:
    """Noisy comparisons of random segments of three steps by their true return."""
    segments = task.world.segments(2 * n, 3, seed=seed)
    paid = [float(task.truth[s.output.observations[:-1], s.output.actions].sum()) for s in segments]
    chance = np.random.default_rng(seed)
    pairs = zip(segments[:n], segments[n:], np.array(paid[:n]) - np.array(paid[n:]), strict=True)
    return [
        Judgement((a, b), rank=(0, 1) if chance.random() < 1 / (1 + np.exp(-gap)) else (1, 0)) for a, b, gap in pairs
    ]


def fitted(run: Run, *, labels: int) -> dict[str, float]:
    """A linear reward of the same features fitted to comparisons of segments, then planned on."""
    gold, right = [], []
    for number in _numbers(run):
        task, n = Task(number), run.size(labels, 5)
        reward = SegmentReward(task.features, by="return")
        rows = comparison_rows(_compared(task, n, number))
        data = attach(reward.encode(rows.samples), rows)
        learner = Learner(reward, lr=run.point.get("lr", 0.3))
        for _ in fit(learner, data, bradley_terry, epochs=run.size(40, 1), batch=n, seed=number):
            pass
        gold.append(task.gold(greedy(task.world.mdp.optimal(reward.table.detach(), tolerance=1e-6))))
        held = _compared(task, run.size(200, 5), 10_000 + number)
        with torch.no_grad():
            scores = reward.evaluate(reward.encode([s for j in held for s in j.items]))["scores"].reshape(-1, 2)
        first = torch.tensor([j.rank == (0, 1) for j in held])
        right.append(float(((scores[:, 0] > scores[:, 1]) == first).double().mean()))
    return {"gold": float(np.mean(gold)), "held_out": float(np.mean(right)), "answers": float(run.size(labels, 5))}


def _numbers(run: Run) -> range:
    return range(run.seed * 100, run.seed * 100 + run.size(4, 1))


RECIPE = Recipe(
    slug="icpl",
    arms={
        "icpl": Arm(search, tuned=False),
        "icpl, no history or traces": Arm(partial(search, told=False), tuned=False),
        "random programs": Arm(partial(search, deaf=True), tuned=False),
        "icpl, annotator lies": Arm(partial(search, inverted=True), tuned=False),
        "15 comparisons": Arm(partial(fitted, labels=15)),
        "1000 comparisons": Arm(partial(fitted, labels=1000)),
    },
    expectations=[
        Expect("ten answers are asked", "answers", "icpl", low=9.5, high=10.5, every=True),
        Expect("ICPL has more gold than a reward fitted to 15 comparisons", "gold", "icpl", "15 comparisons", low=0),
        Expect("and than programs drawn at random", "gold", "icpl", "random programs", low=0),
        Expect("nor less than without history and traces, to 0.02", "gold", "icpl", "icpl, no history or traces",
               low=-0.02),
        Expect("1,000 comparisons are no more than 0.1 better", "gold", "icpl", "1000 comparisons", low=-0.1),
        Expect("it is better than its own first round", "gold", "icpl", "icpl", over_figure="first", low=0),
        Expect(
            "a lying annotator drives it below its first round", "gold", "icpl, annotator lies", "icpl, annotator lies",
            over_figure="first", high=0,
        ),
    ],
    grid=({"lr": 0.3}, {"lr": 1.0}),
    tune="held_out",
    seeds=range(5),
    scale="5x5 gridworlds planned exactly, expressions for programs, a random mutator for the language model",
)  # fmt: skip
