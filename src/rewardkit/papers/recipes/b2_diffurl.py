"""B2-DiffuRL: train the last steps first, and compare branches of one latent instead of whole paths.

On world ``gaussians`` with 20 steps: gold rewards the mode that a path falls into (decided early) and the place within
it (decided late). The full method draws four branches from each of four latents a prompt, forks later at first and
earlier by and by (the last 14 steps, then all 20), standardises gold by its prompt's last eight turns, and trains the
best branch of a fork if it is good and the worst if it is bad. Against it: DDPO on as many points, and backward
intervals alone (the same forks, every branch trained). Gradient noise is measured on forked batches of the base policy:
how far single gradients lie from their mean, for all branches and for the contrasted ones. All arms share a grid of
learning rates, tuned by annotators' preference. Left out: images, prompts with sparse rewards, LoRA, DPO-style updates.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rewardkit.credit.base import Rule, apply, chain
from rewardkit.credit.branches import PromptHistory, branch_contrast
from rewardkit.credit.group import group_relative
from rewardkit.loops.prompts import PromptSet
from rewardkit.objectives.policy import clipped
from rewardkit.papers.gaussians import WORLD, base, figures, points, policy_gradient
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.policies.diffusion import Denoise, Forked
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Sample

HOW, TURNS, FORKS, BRANCHES = Denoise(20), 16, 4, 4
"""64 points a turn: four branches of four latents of four prompts."""


def prompts() -> list[Sample]:
    """Every prompt with a number of its own, by which rows of the same prompt are known in every turn."""
    return [Sample(p, hidden={"family": i}) for i, p in enumerate(WORLD.prompts)]


def shared(turn: int, turns: int) -> int:
    """Steps before the fork in this turn: the last 14 are trained at first, all 20 in the end."""
    return round(6 * (1 - (turn - 1) / max(1, turns - 1)))


def coverage(policy: Any, run: Run) -> float:
    """How evenly points fall on the three modes of their prompt: entropy over log 3, a mean over prompts."""
    found = []
    for p, x in zip(WORLD.prompts, points(policy, run.size(256, 4), 70_000 + run.seed, HOW), strict=True):
        mode = torch.cdist(x.double(), WORLD.data[p].means.double()).argmin(1)
        share = torch.bincount(mode, minlength=3).double() / len(x)
        found.append(float(torch.special.entr(share).sum() / torch.log(torch.tensor(3.0))))
    return sum(found) / len(found)


def trained(run: Run, credit: Rule, *, branch: bool) -> dict[str, Any]:
    """The one loop; with ``branch`` its policy forks, later at first."""
    policy, turns = base(run), run.size(TURNS, 1)
    learner_of: Any = Forked(policy, after=shared(1, turns)) if branch else policy
    forks = run.size(FORKS, 1) if branch else 1
    n = run.size(BRANCHES, 2) * (1 if branch else run.size(FORKS, 1))
    for turn in policy_gradient(
        learner_of, WORLD.gold, run.seed, lr=run.point.get("lr", 1e-3), credit=credit, n=n, sampling=HOW, steps=turns,
        batch=forks * len(WORLD.prompts), prompts=PromptSet(prompts(), seed=run.seed),
    ):  # fmt: skip
        if branch:
            learner_of.after = shared(turn.step + 1, turns)
    return {**figures(run, policy, how=HOW), "coverage": coverage(policy, run)}


def noise(gradients: Sequence[dict[str, Tensor]]) -> float:
    """Mean squared distance of gradients from their mean, over the squared length of the mean without its noise."""
    g = torch.stack([torch.cat([x.flatten() for x in one.values()]) for one in gradients]).double()
    variance = g.var(0).sum()
    return float(variance / (g.mean(0).square().sum() - variance / len(g)).clamp(min=1e-12))


def contrast(run: Run) -> dict[str, Any]:
    """Gradient noise at the base policy, on the same forked batches."""
    policy, forks = base(run), run.size(FORKS, 1)
    learner, rows = Learner(policy, lr=1e-3), [s for s in prompts() for _ in range(forks)]
    rules: dict[str, Rule] = {
        "all branches": PromptHistory(turns=0),
        "contrasted": chain(PromptHistory(turns=0), branch_contrast),
    }
    found: dict[str, list[dict[str, Tensor]]] = {name: [] for name in rules}
    for number in range(run.size(24, 2)):
        seed = run.seed * 7_919 + number
        rollout = Forked(policy, after=6).sample(rows, run.size(BRANCHES, 3), sampling=HOW, seed=seed)
        rollout.family = torch.tensor([s.hidden["family"] for s in rollout.samples])
        for name, rule in rules.items():
            found[name].append(learner.grads(Term(apply(rule, rollout, WORLD.gold(rollout)), clipped)))
    return {f"noise, {name}": noise(g) for name, g in found.items()} | {"preferred": 0.0}


RECIPE = Recipe(
    slug="b2_diffurl",
    arms={
        "b2-diffurl": Arm(lambda run: trained(run, chain(PromptHistory(turns=8), branch_contrast), branch=True)),
        "ddpo": Arm(partial(trained, credit=group_relative, branch=False)),
        "backward intervals": Arm(lambda run: trained(run, PromptHistory(turns=8), branch=True)),
        "noise": Arm(contrast, tuned=False),
    },
    expectations=[
        Expect("the full method has more gold than DDPO on as many points", "gold", "b2-diffurl", "ddpo", low=0),
        Expect("it covers the modes no less", "coverage", "b2-diffurl", "ddpo", low=-0.05),
        Expect("contrasting branches adds to backward intervals", "gold", "b2-diffurl", "backward intervals", low=0),
        Expect(
            "contrasted branches have less gradient noise than all of them", "noise, contrasted", "noise", "noise",
            high=0, over_figure="noise, all branches",
        ),
    ],
    grid=({"lr": 3e-4}, {"lr": 1e-3}),
    tune="preferred",
    seeds=range(3),
    scale="a network of 50,000 weights on points in the plane, 20 steps, 16 turns of 64 points",
)  # fmt: skip
