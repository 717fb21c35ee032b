"""Elastic reset against a KL penalty, at equal numbers of sampled replies, over all checkpoints.

On world ``tokens`` a policy is optimised against a reward model from 1,000 noisy comparisons by the clipped policy
gradient with group-relative advantages. Elastic reset has no KL term: every 12 of 36 turns the policy takes the moving
average of its weights, and the average goes back to the first ones. It is a ``for`` over ``online`` with a fork, a lerp
and two loads. Against it: no KL at all, a KL in the reward (three strengths, whose checkpoints are pooled, so the
baseline is given three runs), a hard reset to the start, and the usual mistake of forgetting the second reset. Drift is
the KL to the start in nats a reply; the figure is the area under the reward-drift front of all checkpoints up to 3
nats. With a decay of 0 the average is the policy itself and nothing may change, to the last digit. The optimiser is
kept, as in the authors' code. The learning rate is chosen by annotators' preference. Left out: translation, IMDB and
StackLLaMA, the value network, and elastic reset with a KL term besides. About five minutes on one core.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from rewardkit.credit.base import chain
from rewardkit.credit.group import group_relative
from rewardkit.credit.kl import kl_penalty
from rewardkit.loops.elastic import ElasticReset
from rewardkit.loops.online import online
from rewardkit.loops.prompts import PromptSet
from rewardkit.objectives.policy import clipped
from rewardkit.papers.fronts import area, point, proxy_of
from rewardkit.papers.kit import preferred
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.policies.language import LanguagePolicy
from rewardkit.rewards.learned.scalar import ScalarReward
from rewardkit.training.learner import Learner
from rewardkit.worlds.tokens import LENGTH, Tokens

TURNS, EVERY, DECAY, NATS = 36, 12, 0.9, 3.0


def _setting(run: Run) -> tuple[Tokens, LanguagePolicy, ScalarReward]:
    world = Tokens(length=run.size(LENGTH, 2))
    return world, world.base(steps=run.size(300, 2)), proxy_of(run.seed, run.smoke)


def optimise(run: Run, betas: Sequence[float] = (0.0,), **reset: Any) -> dict[str, Any]:
    """One run for each KL price, all checkpoints pooled; ``reset`` are the options of ``ElasticReset``, if any."""
    world, start, model = _setting(run)
    n, every = run.size(32, 1), run.size(EVERY, 1)
    points, curve = [], list[float]()
    for beta in run.size(tuple(betas), (betas[0],)):
        policy = world.base(steps=run.size(300, 2))
        learner = Learner(policy, lr=run.point.get("lr", 3e-4))
        spring = ElasticReset(learner, every=every, **reset) if reset else None
        curve = []
        credit = chain(partial(kl_penalty, coef=beta), group_relative)
        for turn in online(
            learner, PromptSet(world.prompts, seed=run.seed), model, credit, clipped, reference="start",
            steps=run.size(TURNS, 2), n=run.size(16, 2), batch=len(world.prompts), sampling=world.sampling,
            seed=run.seed,
        ):  # fmt: skip
            curve.append(turn.metrics["reward"])
            if turn.step % run.size(3, 1) == 0:
                points.append(point(world, policy, model, n=n))
            if spring is not None and turn.step < run.size(TURNS, 2):
                spring.after(turn.step)
    first = point(world, start, model, n=n)
    recovery = _recovery(curve, every)
    return {
        "area": area(points, first, "proxy", NATS),
        "gold area": area(points, first, "gold", NATS),
        "recovery": recovery,
        "half recovery": recovery / 2,
        "end": points[-1]["proxy"],
        "preferred": preferred(world, policy, run.seed, n=run.size(32, 1)),
        "reward by turn": curve,
        **{f"{k} by checkpoint": [p[k] for p in points] for k in ("kl", "proxy", "gold")},
    }


def _recovery(curve: Sequence[float], every: int) -> float:
    """Turns after a reset until the batch's reward is that of the four turns before it; the mean over the resets."""
    waits = []
    for at in range(every, len(curve), every):
        before, after = sum(curve[at - 4 : at]) / min(at, 4), curve[at : at + every]
        waits.append(next((i for i, r in enumerate(after) if r >= before), len(after)))
    return sum(waits) / len(waits) if waits else 0.0


RECIPE = Recipe(
    slug="elastic_reset",
    arms={
        "elastic reset": Arm(partial(optimise, decay=DECAY)),
        "with KL": Arm(partial(optimise, betas=(0.05, 0.2, 0.8))),
        "no KL": Arm(optimise),
        "hard reset": Arm(partial(optimise, decay=1.0)),
        "second reset forgotten": Arm(partial(optimise, decay=DECAY, second=False)),
        "decay 0": Arm(partial(optimise, decay=0.0)),
    },
    expectations=[
        Expect("a larger area under the reward-drift front than with KL", "area", "elastic reset", "with KL", low=0),
        Expect("a larger area than without KL or resets", "area", "elastic reset", "no KL", low=0),
        Expect("a larger area than a hard reset", "area", "elastic reset", "hard reset", low=0),
        Expect(
            "the reward recovers in less than half the turns of a hard reset",
            "recovery",
            "elastic reset",
            "hard reset",
            high=0,
            over_figure="half recovery",
        ),
        Expect("the second reset matters", "area", "elastic reset", "second reset forgotten", low=0),
        Expect(
            "with a decay of 0 it is no reset at all (end reward)",
            "end",
            "decay 0",
            "no KL",
            low=-1e-9,
            high=1e-9,
            every=True,
        ),
    ],
    grid=({"lr": 1e-4}, {"lr": 3e-4}),
    tune="preferred",
    seeds=range(3),
    scale="a 20,000-weight model on short strings, 36 turns of 96 sampled replies, 2 resets",
)
