"""World gaussians: one reward model, then policy gradient, preferences and backpropagation, for diffusion and flow, and
for the consistency model that the flow is distilled into.

The log-prob of an output that is noised anew bounds that of a denoiser. A consistency model says where a path ends, not
the mean of what a state may have come from: its preferences are those of the jumps that it was sampled by.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.proofs.kit import Proof, Run, backpropagation, learned, policy_gradient, preferences, scatter
from rewardkit.credit.base import chain
from rewardkit.credit.group import rloo, whiten
from rewardkit.credit.kl import kl_penalty
from rewardkit.feedback.pairs import best_worst_pairs
from rewardkit.loops.online import online
from rewardkit.loops.prompts import PromptSet
from rewardkit.objectives.policy import clipped
from rewardkit.objectives.preference import dpo
from rewardkit.policies.diffusion import Consistency, Denoise, DiffusionPolicy, PathValue
from rewardkit.rewards.learned.tensor import TensorReward
from rewardkit.training.fit import fit
from rewardkit.training.learner import Learner
from rewardkit.training.reference import attach_reference
from rewardkit.types import Rollout, Sample
from rewardkit.worlds.gaussians import Gaussians
from rewardkit.worlds.gaussians.distilled import consistency_policy

WORLD, BETA = Gaussians(), 0.3
PAIRS = 2000
DPO_BETAS = (0.3, 1.0, 3.0, 10.0, 30.0)
KINDS: dict[str, tuple[Callable[[], DiffusionPolicy], Denoise]] = {
    "diffusion": (partial(WORLD.base_policy, "diffusion"), Denoise(10)),
    "flow": (partial(WORLD.base_policy, "flow"), Denoise(10)),
    "consistency": (partial(consistency_policy, WORLD), Denoise(4)),
}
"""Base policy of each generator, and how it is sampled."""


class Score(nn.Module):
    """A small network on a point and its prompt."""

    def __init__(self, prompts: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2 + prompts, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, outputs: Tensor, condition: Tensor) -> Tensor:
        return self.net(torch.cat([outputs, condition], -1))


def reward_model(base: DiffusionPolicy, seed: int, *, how: Denoise) -> TensorReward:
    """Bradley-Terry on noisy comparisons of the base policy's own points."""
    drawn = base.sample(WORLD.prompts, 2 * PAIRS // len(WORLD.prompts), sampling=how, seed=100 + seed).samples
    judged = WORLD.compare(drawn[0::2], drawn[1::2], seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reward = TensorReward(Score(len(WORLD.prompts)), condition=WORLD.condition)
    return learned(reward, judged, lr=2e-3, epochs=6, batch=64, seed=seed)


def by_policy_gradient(policy: DiffusionPolicy, reward: TensorReward, seed: int, *, how: Denoise) -> None:
    """Against the learned reward."""
    policy_gradient(policy, reward, WORLD.prompts, beta=BETA, lr=3e-4, n=32, steps=120, sampling=how, seed=seed)


def by_preferences(policy: DiffusionPolicy, reward: TensorReward, seed: int, *, how: Denoise, beta: float) -> None:
    """Pairs of the base policy's own points."""
    drawn = policy.sample(WORLD.prompts * 500, 2, sampling=how, seed=200 + seed)
    # More epochs on jumps: there is one draw of noise in each, and no other for another walk. Seed 100 chose how many.
    way, epochs = (preferences_of_jumps, 16) if isinstance(policy.process, Consistency) else (preferences, 4)
    way(policy, drawn, reward, beta=beta, lr=3e-4, epochs=epochs, seed=seed)


def preferences_of_jumps(
    policy: DiffusionPolicy, drawn: Rollout, reward: TensorReward, *, beta: float, lr: float, epochs: float, seed: int
) -> None:
    """As :func:`benchmarks.proofs.kit.preferences`, on outputs as they were sampled."""
    pairs = attach_reference(best_worst_pairs(drawn, reward(drawn)), policy.at("start"))
    for _ in fit(Learner(policy, lr=lr), pairs, partial(dpo, beta=beta), epochs=epochs, batch=64, seed=seed):
        pass


def dpo_beta(base: DiffusionPolicy, *, how: Denoise, seed: int = 100) -> float:
    """The coefficient whose policy has most of what policy gradient goes up, the learned reward less ``BETA`` times the
    KL, on a seed of its own. Gold is not looked at."""
    reward = reward_model(base, seed, how=how)

    def regularised(beta: float) -> float:
        policy = copy.deepcopy(base)
        by_preferences(policy, reward, seed, how=how, beta=beta)
        drawn = policy.sample(WORLD.prompts, 500, sampling=how, seed=seed)
        proxy = reward(drawn).outcome
        assert proxy is not None
        return float(proxy.mean()) - BETA * WORLD.measure(policy, n=500, sampling=how)["kl"]

    return max(DPO_BETAS, key=regularised)


def by_backpropagation(policy: DiffusionPolicy, reward: TensorReward, seed: int, *, how: Denoise) -> None:
    """The learned reward's own gradient through the last five steps, all where there are fewer, with the KL as a second
    term."""

    def value(points: Tensor, samples: Sequence[Sample]) -> Tensor:
        return reward.of(points, torch.stack([WORLD.condition(s.asked) for s in samples]))

    draw = partial(policy.sample, WORLD.prompts, 32, sampling=how)
    want = PathValue(value, last=5)
    backpropagation(policy, lambda s: draw(seed=s), want, beta=BETA, lr=3e-4, steps=120, seed=seed)


def optimum(policy: DiffusionPolicy, seed: int, *, how: Denoise) -> list[dict[str, float]]:
    """Policy gradient on gold itself with a KL in the reward, measured on the way to the closed form."""
    credit = chain(partial(kl_penalty, coef=BETA), rloo, whiten)
    found = []
    for turn in online(
        Learner(policy, lr=3e-4), PromptSet(WORLD.prompts), WORLD.gold, credit, clipped, reference="start", n=32,
        batch=4, inner=2, steps=400, sampling=how, seed=seed,
    ):  # fmt: skip
        if turn.step in (1, 25, 50, 100, 200, 400):
            m = WORLD.measure(policy, n=1000, sampling=how)
            found.append({"step": turn.step, **m, "objective": m["gold"] - BETA * m["kl"]})
    return found


METHODS: dict[str, Callable[..., None]] = {
    "policy gradient": by_policy_gradient,
    "backpropagation": by_backpropagation,
}


def prove(run: Run) -> Proof:
    """Every kind, method and seed."""
    best = [WORLD.regularised(p, BETA) for p in WORLD.prompts]
    highest = sum(gold - BETA * kl for _, gold, kl in best) / len(best)
    note = (
        f"the optimum of gold - {BETA} KL is {highest:.3f}; preferences on the consistency model are of the jumps that "
        "it was sampled by, as a point that is noised anew has no log-prob of its own there"
    )
    proof = Proof("gaussians", note)
    for kind, (make, how) in KINDS.items():
        base, measure = make(), partial(WORLD.measure, n=1000, sampling=how)
        proof.add(kind, "base", 0, measure(base))

        def show(name: str, policy: DiffusionPolicy, kind: str = kind, how: Denoise = how) -> None:
            proof.pictures.append(scatter(f"{kind}: {name}", _points(policy, how)))

        show("base", base)
        beta = dpo_beta(base, how=how)
        run.say(f"gaussians {kind}: beta of dpo is {beta}")
        methods = METHODS | {"preferences": partial(by_preferences, beta=beta)}
        methods = {name: partial(method, how=how) for name, method in methods.items()}
        for seed in range(run.seeds):
            reward = reward_model(base, seed, how=how)
            proof.train(run, kind, base, methods, reward, seed, measure=measure, show=show)
            policy = copy.deepcopy(base)
            curve = optimum(policy, seed, how=how)
            proof.curves.setdefault(kind, []).append(curve)
            run.say(proof.add(kind, "on gold, 400 turns", seed, {k: v for k, v in curve[-1].items() if k != "step"}))
    chance = torch.Generator().manual_seed(0)
    drawn = {p: b.sample(300, chance) for p, (b, _, _) in zip(WORLD.prompts, best, strict=True)}
    proof.pictures.append(scatter("optimum", drawn))
    proof.highest = highest
    return proof


def _points(policy: DiffusionPolicy, how: Denoise) -> dict[str, Any]:
    drawn = policy.sample(WORLD.prompts, 300, sampling=how, seed=3).samples
    return {p: torch.stack([s.output for s in drawn if s.prompt == p]) for p in WORLD.prompts}
