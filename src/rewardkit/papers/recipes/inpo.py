"""InPO: Diffusion-DPO on states that the model itself would have passed through, found by inverting its sampler.

On world ``gaussians``: 1,000 noisy comparisons of the base policy's own points serve the same ``dpo(over="position")``
for 80 steps, once on points noised by chance (Diffusion-DPO) and once on points led up the sampler by ten inversion
steps. Each comparison has its own times, the same for winner, loser and reference. Each arm runs at two betas. Counted:
the steps until gold has risen to -0.5 (a run that never does counts twice its length), and the squared MMD to the base
policy's points at the end and on the way there. The learning rate of each arm is chosen by annotators' preference over
the base. Left out: images, SD1.5 and SDXL, the small noise in inversion, compute: an inversion costs ten calls of the
network without gradient.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from rewardkit.objectives.preference import dpo
from rewardkit.papers.gaussians import base, gold_of, mmd, pairs, points, preferences, preferred, start_points
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.policies.diffusion import DiffusionPolicy, Inverted
from rewardkit.types import Rollout, Sample

STEPS, EVERY, GOLD, DRAWS = 80, 4, -0.5, 4
"""Updates; updates between two looks; the gold reward to be reached, from about -0.8; times an output in ``encode``."""


def _encoded(policy: DiffusionPolicy, inverted: Inverted | None, samples: list[Sample]) -> Rollout:
    """Comparisons as rows, two each, which share their draws."""
    return policy.encode(samples, torch.arange(len(samples)) // 2, inverted=inverted)


def _trained(run: Run, beta: float, inverted: Inverted | None) -> dict[str, Any]:
    """One run: when gold reached its mark, how far the points were from the base's then and at the end."""
    policy, steps = base(run), run.size(STEPS, 2)
    policy.draws = DRAWS
    judged = pairs(policy, run.size(1000, 8), 10 + run.seed)
    epochs = steps / -(-len(judged) // 32)
    curve, there, apart = [], float(2 * steps), float("nan")
    start, look = start_points(run.seed, run.smoke, "diffusion"), run.size(EVERY, 2)
    run_ = preferences(
        policy, judged, partial(dpo, beta=beta, over="position"), run.seed, lr=run.point.get("lr", 1e-3), epochs=epochs,
        batch=32, encode=partial(_encoded, policy, inverted),
    )  # fmt: skip
    for step in run_:
        if step.step % look == 0 or step.step == step.of:
            curve.append(gold_of(policy, run.size(128, 2), 50_000 + run.seed))
            if curve[-1] >= GOLD and there == 2 * steps:
                there, apart = float(step.step), mmd(points(policy, start.shape[1], 60_000 + run.seed), start)
    end = mmd(points(policy, start.shape[1], 60_000 + run.seed), start)
    won = preferred(policy, policy.at("start"), run.seed, n=run.size(100, 2))
    return {"steps": there, "mmd there": apart, "mmd": end, "gold": curve[-1], "preferred": won, "curve": curve}


def arm(run: Run, inverted: Inverted | None) -> dict[str, Any]:
    """Means over the betas, and the curve of gold at each."""
    runs = [_trained(run, beta, inverted) for beta in run.size((0.1, 1.0), (0.3,))]
    found: dict[str, Any] = {k: sum(r[k] for r in runs) / len(runs) for k in runs[0] if k not in ("curve", "mmd there")}
    reached = [r["mmd there"] for r in runs if r["mmd there"] == r["mmd there"]]
    found["mmd there"] = sum(reached) / len(reached) if reached else float("nan")
    return found | {f"gold, run {i}": r["curve"] for i, r in enumerate(runs)}


RECIPE = Recipe(
    slug="inpo",
    arms={
        "inpo": Arm(partial(arm, inverted=Inverted(10))),
        "diffusion-dpo": Arm(partial(arm, inverted=None)),
    },
    expectations=[
        Expect("inversion reaches the gold reward in fewer steps", "steps", "inpo", "diffusion-dpo", high=0),
        Expect("its gold at the end is not lower", "gold", "inpo", "diffusion-dpo", low=-0.02),
        Expect("when it is reached, it is no further from the base", "mmd there", "inpo", "diffusion-dpo", high=0.01),
    ],
    grid=({"lr": 3e-4}, {"lr": 1e-3}),
    tune="preferred",
    seeds=range(3),
    scale="a network of 50,000 weights on points in the plane, 80 steps on 1,000 comparisons",
)
