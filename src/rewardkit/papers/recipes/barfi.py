"""BARFI: a sparse primary and a designer's auxiliary reward, blended by weights that are trained by implicit gradient.

Gridworlds that can be listed, a goal in the corner that pays 1, and three auxiliary rewards: steps towards the goal are
paid (helpful), steps towards another corner (misleading), every visit to a cell by the way (adversarial: a loop pays
more than the goal). A table policy goes up the exact entropy-regularised return under the primary reward alone, under
the plain sum, under potential-based shaping by the auxiliary one, and under the blend, whose weights go up the primary
return of the policy that came of them (``bilevel``: implicit gradient by a Neumann series, no unrolled steps). The
control takes the gradient through a single unrolled step instead. All arms make as many updates of the
policy. Left out: sampled rollouts (expectations are exact, so nothing is noise but the worlds), the learned discount,
and the continuous tasks of the paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rewardkit.loops.bilevel import bilevel
from rewardkit.objectives.path import path_gradient
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.policies.path import PathValue
from rewardkit.policies.table import TablePolicy
from rewardkit.rewards.blend import BilevelBlend
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Sample
from rewardkit.worlds.tables.grids import GOAL, GridWorld

SIZE, ENTROPY, UPDATES, EVERY = 5, 0.01, 400, 10
"""Updates of the policy, and how many of them before each update of the reward."""
RATE, NEUMANN = 2.0, 20
KINDS = ("helpful", "misleading", "adversarial")
REWARDS: dict[str, Callable[[GridWorld, Tensor, Tensor], Tensor]] = {
    "primary": lambda world, primary, auxiliary: primary,
    "sum": lambda world, primary, auxiliary: primary + auxiliary,
    "shaping": lambda world, primary, auxiliary: (
        world.mdp.ahead(primary, auxiliary.mean(1)) - auxiliary.mean(1)[:, None]
    ),
}
"""The rewards that stay; the potential is what the designer pays for a random action."""


def _world(seed: int) -> GridWorld:
    return GridWorld(SIZE, seed=seed, mud=0, pits=0, slip=0.1, goal=SIZE * SIZE - 1)


def _auxiliary(world: GridWorld, kind: str, seed: int) -> Tensor:
    """What the designer pays for a step, ``[S, A]``."""
    entered, cells = world.entered, torch.arange(SIZE * SIZE)
    if kind == "adversarial":
        cell = int(np.random.default_rng(seed).integers(1, SIZE * SIZE - 2))
        return 0.3 * entered[..., cell]
    corner = SIZE * SIZE - 1 if kind == "helpful" else 0
    apart = (cells // SIZE - corner // SIZE).abs() + (cells % SIZE - corner % SIZE).abs()
    return 0.1 * (entered.sum(-1) * apart[:, None] - entered @ apart.double())


def _returns(world: GridWorld, reward: Tensor, entropy: float) -> PathValue:
    """The exact value of every cell under a policy's probabilities, with a bonus for its entropy."""
    return PathValue(lambda p, samples: world.mdp.values(p, reward - entropy * p.log()))


def _term(data: Any, world: GridWorld, reward: Tensor, entropy: float = ENTROPY) -> Term:
    return Term(data, path_gradient, want=(_returns(world, reward, entropy),))


def _learn(run: Run, how: str, kind: str) -> dict[str, float]:
    """One auxiliary reward: primary return at the end, half way and on average, as shares of the best; mean |phi3|."""
    world = _world(run.seed)
    primary, auxiliary = world.features[..., GOAL], _auxiliary(world, kind, run.seed)
    chance = torch.Generator().manual_seed(run.seed)
    logits = torch.randn(len(world.cells), 1, len(world.actions), generator=chance, dtype=torch.float64)
    policy = TablePolicy(world.cells, world.actions, logits=logits)
    data = policy.encode([Sample(c, world.actions[0]) for c in world.cells])
    learner, blend = Learner(policy, lr=0.02, clip=None), BilevelBlend(primary, auxiliary)
    steps = run.size(UPDATES, EVERY) // EVERY

    def fixed(reward: Tensor) -> Iterator[None]:
        for _ in range(steps):
            for _ in range(EVERY):
                learner.step(_term(data, world, reward))
            yield

    turns: Iterator[Any]
    if how in REWARDS:
        turns = fixed(REWARDS[how](world, primary, auxiliary))
    else:
        # With one term the Neumann series is the gradient through a single step of gradient ascent.
        turns = bilevel(
            learner, Learner(blend, lr=run.point.get("lr", 0.05), clip=None), lambda table: [_term(data, world, table)],
            lambda: [_term(data, world, primary, 0.0)], steps=steps, inner_steps=EVERY, rate=RATE,
            neumann=1 if how == "one step" else NEUMANN,
        )  # fmt: skip
    best, seen = float(world.mdp.start @ world.mdp.optimal(primary).amax(1)), []
    try:
        for _ in turns:
            p = policy.logits.detach()[:, 0].softmax(-1)
            seen.append(float(world.mdp.performance(p, primary)) / best)
    except FloatingPointError:  # the series diverged: no figure
        seen = [math.nan]
    weight = blend.weights.detach()[2][auxiliary != 0].abs().mean()
    return {
        "final": seen[-1], "halfway": seen[len(seen) // 2], "speed": float(np.mean(seen)), "weight": float(weight)
    }  # fmt: skip


def arm(run: Run, *, how: str) -> dict[str, float]:
    """Figures by auxiliary reward; ``halfway`` is their mean."""
    by_kind = {kind: _learn(run, how, kind) for kind in KINDS}
    found = {f"{name}, {kind}": by_kind[kind][name] for kind in KINDS for name in ("final", "speed", "weight")}
    return found | {"halfway": float(np.mean([x["halfway"] for x in by_kind.values()]))}


RECIPE = Recipe(
    slug="barfi",
    arms={
        "blend": Arm(partial(arm, how="blend")),
        "one step": Arm(partial(arm, how="one step")),
        **{how: Arm(partial(arm, how=how), tuned=False) for how in REWARDS},
    },
    expectations=[
        Expect("the blend withstands a misleading reward", "final, misleading", "blend", "sum", low=0.2),
        Expect("and an adversarial one", "final, adversarial", "blend", "sum", low=0.2),
        Expect("a helpful one makes it no slower than none", "speed, helpful", "blend", "primary", low=0),
        Expect(
            "it trusts the adversarial less",
            "weight, adversarial",
            "blend",
            high=0,
            over="blend",
            over_figure="weight, helpful",
        ),
        Expect("a helpful reward is used better than by shaping", "speed, helpful", "blend", "shaping", low=0),
        Expect("one unrolled step is no substitute", "final, misleading", "blend", "one step", low=0),
    ],
    grid=({"lr": 0.02}, {"lr": 0.05}, {"lr": 0.1}),
    tune="halfway",
    seeds=range(5),
    scale="gridworlds of 25 cells, exact expectations, 400 updates of the policy",
)
