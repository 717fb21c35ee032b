"""R0: a four-step generator trained by rewards alone, with regularisers in place of distillation.

World ``gaussians``. The generator is the base diffusion model in four steps that renoise, ``x' = a clean +
s (sqrt(1 - eta^2) eps + eta noise)``; it is trained by ``path_gradient`` through all of them. Two proxies, each
hackable in its own way: how far a point lies in the direction of the prompt's aim (without end), and how near it lies
to the circle of the data (anywhere on it). Gold is the log-density of the target conditional, the KL-regularised
optimum of the world's reward, which training never sees; MMD to it and spread are reported besides. Arms: both proxies
with their gradients made equally long, eta drawn afresh for each batch, and a pull of the weights to their start after
each step (R0); one proxy alone; both without regularisers; both as a plain sum; denoising of a 20-step teacher's points
beside the rewards (reward-enhanced distillation), which pays for those points. Left out: images, CLIP and implicit
guidance as a reward, eta drawn for each sample, LoRA, R0+ with its rewards of intermediate steps, and DMD-like losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rewardkit.loops.rounds import rounds
from rewardkit.objectives.imitation import sft
from rewardkit.objectives.path import path_gradient
from rewardkit.papers.gaussians import WORLD, base, mmd, preferred
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.policies.diffusion import Denoise, Diffusion, DiffusionPolicy, PathValue
from rewardkit.policies.diffusion.process import like
from rewardkit.rewards.gradnorm import multi_reward_gradnorm
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Rollout, Sample

HOW, TEACHER, BETA, EACH, PULL = Denoise(4), Denoise(20), 0.3, 16, 0.02


@dataclass(frozen=True, eq=False)
class Renoising(Diffusion):
    """Steps that keep a part ``eta`` of the noise fresh, as consistency models do at 1; 0 is DDIM."""

    def step(self, x: Tensor, output: Tensor, i: Tensor, steps: int, eta: float) -> tuple[Tensor, Tensor]:
        times = self.times(steps).to(x.device)
        (a, b), time = self.scales(torch.cat([times[1:], -times.new_ones(1)])[i]), times[i]
        clean, noise = self.parts(x, output, time)
        return like(a, x) * clean + like(b, x) * (1 - eta**2) ** 0.5 * noise, like(eta * b, x)


def aims(samples: Sequence[Sample]) -> Tensor:
    """The direction that a prompt asks for: unit vectors ``[N, 2]``."""
    return torch.stack([WORLD.gold.centres[str(s.asked)] for s in samples])


def along(points: Tensor, samples: Sequence[Sample]) -> Tensor:
    """Proxy: how far a point lies in the direction that was asked for. It is hacked by going on for ever."""
    return (points * aims(samples)).sum(1)


def round_(points: Tensor, samples: Sequence[Sample]) -> Tensor:
    """Proxy: how near a point is to the circle of the data. It is hacked by standing anywhere on it."""
    return -4 * (points.norm(dim=1) - 1.5).square()


PROXIES = {
    "both": multi_reward_gradnorm([(along, 1.0), (round_, 1.0)]),
    "sum": lambda points, samples: along(points, samples) + round_(points, samples),
    "one": along,
}


def generator(run: Run) -> DiffusionPolicy:
    """The base model as a few-step generator."""
    policy = base(run)
    assert isinstance(policy.process, Diffusion)
    policy.process = Renoising(policy.process.alphas, policy.process.prediction)
    policy.keep("start")
    return policy


@cache
def target(smoke: bool) -> Tensor:
    """Points of the target conditional: ``[prompts, n, 2]``."""
    chance = torch.Generator().manual_seed(9)
    return torch.stack([
        WORLD.regularised(p, BETA)[0].sample(8 if smoke else 400, chance) for p in WORLD.prompts
    ])  # fmt: skip


def figures(run: Run, policy: DiffusionPolicy) -> dict[str, float]:
    """Proxies, gold, distance to the target, spread and the annotators' preference over the start."""
    n = run.size(400, 8)
    drawn = policy.sample(WORLD.prompts, n, sampling=HOW, seed=50_000 + run.seed).samples
    points = torch.stack([s.output for s in drawn])
    apart = points.reshape(len(WORLD.prompts), n, 2)
    logs = [WORLD.regularised(p, BETA)[0].log_prob(x) for p, x in zip(WORLD.prompts, apart, strict=True)]
    return {
        "along": float(along(points, drawn).mean()),
        "round": float(round_(points, drawn).mean()),
        "gold": float(torch.cat(logs).mean()),
        "mmd": mmd(apart, target(run.smoke)),
        "spread": float(apart.var(1).sum(-1).sqrt().mean()),
        "preferred": preferred(policy, policy.at("start"), run.seed, n=run.size(100, 2), how=HOW),
    }


def trained(
    run: Run, proxy: str, *, regularised: bool = False, distilled: bool = False, random_eta: bool = False
) -> dict[str, Any]:
    """Rounds of one batch and one step each."""
    policy, teacher = generator(run), base(run)
    learner = Learner(policy, lr=run.point.get("lr", 3e-4))
    chance, calls = np.random.default_rng(run.seed), 0

    def draw(now: DiffusionPolicy, turn: int) -> Rollout:
        nonlocal calls
        eta = float(chance.random()) if random_eta else HOW.eta
        rollout = now.sample(WORLD.prompts, EACH, sampling=Denoise(HOW.steps, eta=eta), seed=run.seed * 10_007 + turn)
        calls += rollout.cost.calls
        return rollout

    def terms(rollout: Rollout) -> list[Term]:
        nonlocal calls
        found = [Term(rollout, path_gradient, want=(PathValue(PROXIES[proxy], last=HOW.steps),))]
        if distilled:
            shown = teacher.sample(WORLD.prompts, EACH, sampling=TEACHER, seed=int(chance.integers(2**31)))
            calls += shown.cost.calls
            found.append(Term(policy.encode(shown.samples), sft))
        return found

    turns = rounds(
        learner, draw, terms=terms, reference=None, rounds=run.size(250, 2), batch=EACH * len(WORLD.prompts),
        seed=run.seed,
    )  # fmt: skip
    for _ in turns:
        if regularised:
            learner.lerp(policy.at("start"), PULL)
    return {**figures(run, policy), "calls": calls}


RECIPE = Recipe(
    slug="r0",
    arms={
        "r0": Arm(partial(trained, proxy="both", regularised=True, random_eta=True)),
        "one proxy": Arm(partial(trained, proxy="one")),
        "both proxies": Arm(partial(trained, proxy="both")),
        "plain sum, regularised": Arm(partial(trained, proxy="sum", regularised=True, random_eta=True)),
        "rewards and distillation": Arm(partial(trained, proxy="both", distilled=True)),
        "start": Arm(lambda run: figures(run, generator(run)), tuned=False),
    },
    expectations=[
        Expect("one proxy alone goes further than R0 on that proxy", "along", "one proxy", "r0", low=0),
        Expect("and loses gold against the start", "gold", "one proxy", "start", high=0),
        Expect("R0 gains gold over the start", "gold", "r0", "start", low=0),
        Expect("and over both proxies without regularisers", "gold", "r0", "both proxies", low=0),
        Expect("R0 has at least the gold of distillation with rewards", "gold", "r0", "rewards and distillation",
               low=0),
        Expect("with fewer calls of networks", "calls", "r0", "rewards and distillation", high=0, every=True),
        Expect("R0 does not collapse: spread above 0.25", "spread", "r0", low=0.25),
        Expect("R0 is nearer the target than both without regularisers", "mmd", "r0", "both proxies", high=0),
    ],
    seeds=range(5),
    grid=({"lr": 1e-4}, {"lr": 3e-4}, {"lr": 1e-3}),
    tune="preferred",
    scale="points in the plane, 250 steps of 64 points",
)  # fmt: skip
