"""RLCM: policy gradient on a consistency model, whose few jumps make a path short, against DDPO on a path of 50 steps.

On world ``gaussians``: the flow policy is distilled into a consistency model by ``sft`` on answers of a moving average
of itself, once for all runs. Both are then trained by the same loop, credit, clipped loss and gold reward, on as many
points a turn: RLCM with 2, 4 and 8 jumps, of which the last is noisy too, DDPO with 50 steps of the flow's SDE from the
weights that were distilled. Counted are calls of the network: those of sampling and of training, forward.
Distillation's are a figure of their own and not in that sum. The learning rate is chosen by annotators' preference over
the arm's own start. Left out: images, latent consistency models, a learned reward, wall time (tiny networks are all
overhead).
"""

from __future__ import annotations

import copy
import math
from functools import cache, partial
from typing import Any

from rewardkit.papers.gaussians import WORLD, base, gold_of, policy_gradient, preferred
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.policies.diffusion import Denoise, DiffusionPolicy
from rewardkit.worlds.gaussians.distilled import calls, consistency_policy

TURNS, POINTS, GOLD = 50, 16, -0.35
"""Turns; points a prompt in each; the gold reward to be reached, from about -0.85 (0 is the highest there is)."""


@cache
def _distilled(steps: int, teacher_steps: int) -> DiffusionPolicy:
    return consistency_policy(WORLD, steps=steps, teacher_steps=teacher_steps)


def consistency(run: Run) -> tuple[DiffusionPolicy, int]:
    """The consistency model, its own start, and how often making it called a network."""
    steps = run.size(1500, 2)
    return copy.deepcopy(_distilled(steps, run.size(3000, 3))), calls(steps)


def _climb(run: Run, policy: DiffusionPolicy, how: Denoise) -> dict[str, Any]:
    """Train, and say after how many calls the mark was reached."""
    turns, n, look = run.size(TURNS, 2), run.size(POINTS, 2), run.size(5, 1)
    each, reached = n * len(WORLD.prompts) * how.steps * 3, math.nan  # a path is drawn once and trained on twice
    start = gold_of(policy, run.size(128, 2), 50_000 + run.seed, how)
    curve = [start]
    for turn in policy_gradient(
        policy, WORLD.gold, run.seed, lr=run.point.get("lr", 1e-3), n=n, steps=turns, sampling=how
    ):
        if turn.step % look == 0:
            curve.append(gold_of(policy, run.size(128, 2), 50_000 + run.seed, how))
            if curve[-1] >= GOLD and math.isnan(reached):
                reached = math.log(turn.step * each)
    return {
        "gold": curve[-1],
        "start": start,
        "log calls": reached,
        "calls": float(turns * each),
        "preferred": preferred(policy, policy.at("start"), run.seed, n=run.size(100, 2), how=how),
        "gold by turn": curve,
    }


def rlcm(run: Run, jumps: int) -> dict[str, Any]:
    """The consistency model with so many jumps."""
    policy, calls = consistency(run)
    return {**_climb(run, policy, Denoise(jumps)), "calls of distillation": float(calls)}


def ddpo(run: Run) -> dict[str, Any]:
    """The flow policy with 50 steps of its SDE."""
    return _climb(run, base(run, "flow"), Denoise(run.size(50, 4)))


RECIPE = Recipe(
    slug="rlcm",
    arms={
        "rlcm, 4 jumps": Arm(partial(rlcm, jumps=4)),
        "rlcm, 2 jumps": Arm(partial(rlcm, jumps=2)),
        "rlcm, 8 jumps": Arm(partial(rlcm, jumps=8)),
        "ddpo, 50 steps": Arm(ddpo),
    },
    expectations=[
        Expect(
            "with 4 jumps the reward is reached in a fifth of the calls or fewer", "log calls", "rlcm, 4 jumps",
            "ddpo, 50 steps", high=-math.log(5),
        ),
        Expect("its gold at the end is DDPO's or more", "gold", "rlcm, 4 jumps", "ddpo, 50 steps", low=-0.02),
        Expect("more jumps do not end lower", "gold", "rlcm, 8 jumps", "rlcm, 2 jumps", low=-0.02),
        Expect("two jumps already gain", "gold", "rlcm, 2 jumps", low=GOLD),
    ],
    grid=({"lr": 3e-4}, {"lr": 1e-3}),
    tune="preferred",
    seeds=range(3),
    scale="a network of 50,000 weights on points in the plane, 50 turns of 64 points",
)  # fmt: skip
