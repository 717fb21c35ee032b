"""FK steering: one particle function on points and on text, against the exact tilted law.

Target: ``p(x) exp(lam r(x)) / Z``. On world ``gaussians`` the network is the exact noise of the world's mixture (40
steps), so that the target is again a known mixture; on world ``tokens`` replies of at most three tokens, whose law is
listed. The same ``particles`` runs on both, with the difference, max and sum potentials, a proposal guided by the
reward's gradient with its correction (points only), and two controls that must fail: the max potential without the
final correction, and the guided proposal without its ratio. Measured: total variation to the exact law as a system
grows from 1 to 256 particles, effective sample sizes, and the reward of the paper's output (the best of 4) against
best-of-4 at the same network calls. Of 4,096 independent draws of the law itself the cells leave a variation of about
0.03. A seed is a world's prompts and all draws. Left out: images, human preference scores and prompt fidelity, learned
intermediate rewards, lookaheads by sampled completions (the tests have them), and the tuning of schedules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from rewardkit.guidance.best_of_n import best_of_n
from rewardkit.guidance.fk_steering import fk_steering
from rewardkit.guidance.gradient import corrected, dps
from rewardkit.guidance.particles import Steering, particles
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.policies.diffusion import Denoise
from rewardkit.policies.language import LanguagePolicy, Sampling
from rewardkit.protocols import Reward
from rewardkit.types import Rollout, Sample
from rewardkit.worlds.gaussians import Gaussians
from rewardkit.worlds.gaussians.exact import exact_policy
from rewardkit.worlds.gaussians.world import SHARPNESS
from rewardkit.worlds.tokens import Tokens

SIZES = (1, 4, 32, 256)
"""Particles of a system."""


@dataclass(frozen=True)
class Case:
    """A policy and a reward for one prompt, with the exact law of the target over cells that outputs fall into."""

    policy: Any
    reward: Reward
    prompt: str
    how: Any
    lam: float
    every: int
    cells: Callable[[Sequence[Sample]], Tensor]
    law: Tensor


@cache
def on_points(seed: int, smoke: bool) -> Case:
    """World ``gaussians`` with the exact denoiser: 64 cells of the plane, and one for what lies outside."""
    world, lam, run = Gaussians(4, seed=seed), 4.0, Run(seed, smoke)
    edges, prompt = torch.linspace(-2.8, 2.8, 9, dtype=torch.float64), world.prompts[seed % 4]

    def cells(samples: Sequence[Sample]) -> Tensor:
        at = torch.bucketize(torch.stack([s.output for s in samples]).double(), edges) - 1
        inside = ((at >= 0) & (at < 8)).all(1)
        return torch.where(inside, at[:, 0] * 8 + at[:, 1], 64)

    target, _ = world.data[prompt].tilted(world.gold.centres[prompt], lam * SHARPNESS)
    fine = (torch.arange(160, dtype=torch.float64) + 0.5) / 160 * 5.6 - 2.8
    density = target.log_prob(torch.cartesian_prod(fine, fine)).exp().reshape(8, 20, 8, 20).sum((1, 3)).flatten()
    mass = density * (5.6 / 160) ** 2
    law = torch.cat([mass, 1 - mass.sum()[None]])
    how = Denoise(run.size(40, 4))
    return Case(exact_policy(world), world.gold, prompt, how, lam, run.size(8, 2), cells, law)


@cache
def on_text(seed: int, smoke: bool) -> Case:
    """World ``tokens``, replies of at most three tokens, all of them listed: cells are first token and gold."""
    world, run, lam = Tokens(), Run(seed, smoke), 1.5
    policy, prompt = world.base(steps=run.size(300, 2)), world.prompts[seed % len(world.prompts)]
    how = Sampling(max_new_tokens=run.size(3, 2))
    samples, log_p = listed(policy, prompt, how)
    names: dict[Any, int] = {}

    def cells(found: Sequence[Sample]) -> Tensor:
        gold = world.gold(Rollout(list(found), torch.ones(len(found), 1))).outcome
        assert gold is not None
        return torch.tensor([
            names.setdefault((s.output[:1], v), len(names)) for s, v in zip(found, gold.tolist(), strict=True)
        ])  # fmt: skip

    where = cells(samples)
    gold = world.gold(Rollout(samples, torch.ones(len(samples), 1))).outcome
    assert gold is not None
    weight = (log_p.double() + lam * gold).softmax(0)
    law = torch.zeros(len(names), dtype=torch.float64).index_add(0, where, weight)
    return Case(policy, world.gold, prompt, how, lam, 1, cells, law)


@torch.no_grad()
def listed(policy: LanguagePolicy, prompt: str, how: Sampling) -> tuple[list[Sample], Tensor]:
    """Every reply with its log-prob, by stepping each to all its continuations."""
    state, log_p = policy.start([prompt], sampling=how, seed=0), torch.zeros(1)
    while state.decoder is not None:
        said = state.decoder.logits.log_softmax(-1)
        live, ended = (~state.done).nonzero()[:, 0], state.done.nonzero()[:, 0]
        log_p = torch.cat([log_p[ended], (log_p[live][:, None] + said).flatten()])
        tokens = torch.arange(said.shape[1])
        actions = torch.cat([torch.zeros_like(ended), tokens.repeat(len(live))])
        state = policy.step(state.select(torch.cat([ended, live.repeat_interleave(len(tokens))])), actions)
    return policy.look(state), log_p


def variation(run: Run, case: Callable[[int, bool], Case], guided: str = "", **options: Any) -> dict[str, Any]:
    """Total variation to the exact law for each size, and the smallest effective size; 4,096 particles in all, and at
    least 64 systems, whose mean is taken for the law: particles of one system are not independent."""
    at, figures, share = case(run.seed, run.smoke), {}, []
    steering = Steering(lam=at.lam, **({"every": at.every} | options))
    proposal = None
    if guided:
        centre = at.reward.centres[at.prompt]  # type: ignore[attr-defined]
        pulled = dps(at.policy, lambda x, _: -0.5 * SHARPNESS * (x - centre).square().sum(-1), 0.5 * at.lam)
        exact = corrected(at.policy, pulled)
        proposal = exact if guided == "ratio" else lambda s: (exact(s)[0], torch.zeros(len(s)))
    for k in SIZES:
        size = min(k, run.size(k, 4))
        starts = [at.prompt] * max(run.size(4096, 16) // size, run.size(64, 4))
        found = particles(
            at.policy, at.reward, starts, size, steering, proposal=proposal, sampling=at.how, seed=1000 * run.seed + k
        )
        weight = found.log_weights.exp().flatten() / len(starts)
        mass = torch.zeros_like(at.law).index_add(0, at.cells(found.samples), weight)
        figures[f"tv_{k}"] = 0.5 * float((mass - at.law).abs().sum())
        share.append(float(found.ess.amin(1).mean()) / size)
    return {**figures, "ess over k": share}


def rewards(run: Run, case: Callable[[int, bool], Case]) -> dict[str, float]:
    """The paper's output, best of four steered particles, and best-of-4, at equal calls of the network."""
    at, n = case(run.seed, run.smoke), run.size(800, 4)
    steered = fk_steering(at.policy, at.reward, particles=4, lam=at.lam, every=at.every)
    plain = best_of_n(at.policy, at.reward, 4)
    drawn = [p.sample([at.prompt], n, sampling=at.how, seed=run.seed)["score"] for p in (steered, plain)]
    return {"reward": float(drawn[0].mean()), "best_of_4": float(drawn[1].mean())}


RIGHT = {
    "points, difference": partial(variation, case=on_points),
    "points, max": partial(variation, case=on_points, potential="max"),
    "points, sum": partial(variation, case=on_points, potential="sum"),
    "points, guided proposal": partial(variation, case=on_points, guided="ratio"),
    "text, difference": partial(variation, case=on_text),
    "text, max": partial(variation, case=on_text, potential="max"),
}
WRONG = {
    "points, max, wrong final": partial(variation, case=on_points, potential="max", corrected=False),
    "points, guided, no ratio": partial(variation, case=on_points, guided="without"),
    "text, max, wrong final": partial(variation, case=on_text, potential="max", corrected=False),
}
RECIPE = Recipe(
    slug="fk_steering",
    arms={
        **{name: Arm(fn, tuned=False) for name, fn in (RIGHT | WRONG).items()},
        "points, rewards": Arm(partial(rewards, case=on_points), tuned=False),
        "text, rewards": Arm(partial(rewards, case=on_text), tuned=False),
    },
    expectations=[
        *(Expect(f"{a}: the variation falls with k", "tv_256", a, a, high=0, over_figure="tv_4") for a in RIGHT),
        *(Expect(f"{a}: within 0.08 of the exact law at k=256", "tv_256", a, high=0.08) for a in RIGHT),
        *(Expect(f"{a}: stays 0.1 away", "tv_256", a, low=0.1) for a in WRONG),
        *(
            Expect(f"{a}: above best-of-4 at equal calls", "reward", a, a, low=0, over_figure="best_of_4")
            for a in ("points, rewards", "text, rewards")
        ),
    ],
    scale="a closed-form denoiser of points in the plane and a 20,000-weight language model, replies of three tokens",
)
