"""WARP against a fixed anchor, front against front, at equal numbers of runs.

On world ``tokens`` every run is policy gradient against a reward model from 1,000 noisy comparisons, with a KL in the
reward. WARP is ``online`` twice, with the moving average of the weights as live reference, ``slerp`` of the two task
vectors, and interpolation towards the start; the point at eta = 0.3 begins a second iteration. Its front are the points
of both sweeps of eta. The fixed anchor (the start) and the moving average alone have as many runs, four KL prices with
all their checkpoints, and are swept towards the start as well: no swept front is held against a point. Figures are the
areas under the fronts up to 3 nats a reply, in gold and in the learned reward. Controls: the linear mean of the same
two runs, and ``slerp`` of whole weights, which is nearly that mean. The learning rate is chosen by annotators'
preference. Left out: Gemma, more than two runs and iterations, and side-by-side evaluation. About five minutes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch

from rewardkit.credit.base import chain
from rewardkit.credit.group import rloo, whiten
from rewardkit.credit.kl import kl_penalty
from rewardkit.loops.online import online
from rewardkit.loops.prompts import PromptSet
from rewardkit.merging import State, ema, lerp, slerp, towards_init, warp
from rewardkit.objectives.policy import reinforce
from rewardkit.papers.fronts import Point, area, point, proxy_of
from rewardkit.papers.kit import preferred
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.policies.language import LanguagePolicy
from rewardkit.policies.weights import read, write
from rewardkit.training.learner import Learner
from rewardkit.worlds.tokens import LENGTH, Tokens

TURNS, MU, BETA, NATS = 24, 0.1, 0.1, 3.0
BETAS, ETAS, NEXT = (0.02, 0.05, 0.1, 0.3), (0.1, 0.2, 0.3, 0.5, 0.7, 1.0), 0.3


class Setting:
    """The world, the start as a state, the reward model, and a policy to measure states with: its start never moves."""

    def __init__(self, run: Run) -> None:
        self.run, self.world = run, Tokens(length=run.size(LENGTH, 2))
        self.meter, self.model = self.base(), proxy_of(run.seed, run.smoke)
        self.start = read(self.meter)
        self.first = self.point(self.start)

    def base(self) -> LanguagePolicy:
        return self.world.base(steps=self.run.size(300, 2))

    def point(self, state: State) -> Point:
        write(self.meter, state)
        return point(self.world, self.meter, self.model, n=self.run.size(32, 1))

    def sweep(self, merge: Any) -> list[Point]:
        """Points of ``merge(eta)`` on the way from the start."""
        return [self.point(merge(eta)) for eta in self.run.size(ETAS, (1.0,))]

    def train(self, start: State, seed: int, beta: float, *, moving: bool) -> Iterator[tuple[int, State]]:
        """One run: the number of each turn, and the weights after it."""
        policy, run = self.base(), self.run
        write(policy, start)
        anchor = policy.keep("anchor")
        for turn in online(
            Learner(policy, lr=run.point.get("lr", 1e-3)), PromptSet(self.world.prompts, seed=seed), self.model,
            chain(partial(kl_penalty, coef=beta), rloo, whiten), reinforce, reference=anchor, n=run.size(16, 2),
            steps=run.size(TURNS, 2), batch=len(self.world.prompts), sampling=self.world.sampling, seed=seed,
        ):  # fmt: skip
            if moving:
                write(anchor, ema(read(anchor), read(policy), MU))
            yield turn.step, read(policy)

    def figures(self, points: Sequence[Point]) -> dict[str, Any]:
        """Areas of the front; annotators' preference for what the meter holds."""
        return {
            "gold area": area(points, self.first, "gold", NATS),
            "proxy area": area(points, self.first, "proxy", NATS),
            "preferred": preferred(self.world, self.meter, self.run.seed, n=self.run.size(32, 1)),
            **{f"{k}s": [p[k] for p in points] for k in ("kl", "gold", "proxy")},
        }


def single(run: Run, *, moving: bool) -> dict[str, Any]:
    """Four runs at four KL prices: their checkpoints, and each one's way back to the start."""
    here, points = Setting(run), []
    for i, beta in enumerate(run.size(BETAS, BETAS[:1])):
        state: State = here.start
        for turn, state in here.train(here.start, 1000 * run.seed + i, beta, moving=moving):
            if turn % run.size(6, 1) == 0:
                points.append(here.point(state))
        points += here.sweep(partial(towards_init, here.start, state))
    return here.figures(points)


def warped(run: Run) -> dict[str, Any]:
    """Two iterations of two runs each."""
    here, init, fronts, found = Setting(run), None, [], {}
    for iteration in range(run.size(2, 1)):
        begin: State = init or here.start
        ends = []
        for m in range(2):
            *_, (_, end) = here.train(begin, 1000 * run.seed + 10 * iteration + m, BETA, moving=True)
            ends.append(end)
        if iteration == 0:
            found = _merged_in_three_ways(here, ends)
        fronts.append(here.sweep(partial(warp, begin, ends)))
        init = warp(begin, ends, NEXT)
    areas = [area(front, here.first, "gold", NATS) for front in fronts]
    both = [p for front in fronts for p in front]
    return here.figures(both) | found | {"second over first": areas[-1] - areas[0]}


def _merged_in_three_ways(here: Setting, ends: Sequence[State]) -> dict[str, float]:
    """The same two runs by slerp of task vectors, by their linear mean, and by slerp of whole weights."""
    one, two = ends
    nothing = {n: torch.zeros_like(x) for n, x in here.start.items()}
    by = {
        "slerp": slerp(here.start, one, two, 0.5),
        "linear": lerp(one, two, 0.5),
        "whole weights": slerp(nothing, one, two, 0.5),
    }

    def apart(a: str, b: str) -> float:
        return sum(float((by[a][n] - by[b][n]).square().sum()) for n in by[a]) ** 0.5

    points = {name: here.point(state) for name, state in by.items()}
    return {
        "slerp over linear": points["slerp"]["proxy"] - points["linear"]["proxy"],
        "whole weights over linear": points["whole weights"]["proxy"] - points["linear"]["proxy"],
        "whole weights nearer to linear": apart("whole weights", "linear") / apart("slerp", "linear"),
    }


RECIPE = Recipe(
    slug="warp",
    arms={
        "warp": Arm(warped),
        "fixed anchor": Arm(partial(single, moving=False)),
        "moving anchor": Arm(partial(single, moving=True)),
    },
    expectations=[
        Expect("a higher gold front than with a fixed anchor", "gold area", "warp", "fixed anchor", low=0),
        Expect("a higher reward front than with a fixed anchor", "proxy area", "warp", "fixed anchor", low=0),
        Expect("a higher gold front than with the moving anchor alone", "gold area", "warp", "moving anchor", low=0),
        Expect("slerp has more reward than the mean of the same two runs", "slerp over linear", "warp", low=0),
        Expect("the second iteration's front is no lower, to 0.02", "second over first", "warp", low=-0.02),
        Expect(
            "slerp of whole weights is nearly the mean (distance over that of slerp)",
            "whole weights nearer to linear",
            "warp",
            high=0.2,
            every=True,
        ),
    ],
    grid=({"lr": 3e-4}, {"lr": 1e-3}),
    tune="preferred",
    seeds=range(3),
    scale="a 20,000-weight model on short strings, four runs of 24 turns an arm, 2 iterations",
)
