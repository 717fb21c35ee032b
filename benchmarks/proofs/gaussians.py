"""World gaussians: one reward model, then policy gradient, preferences and backpropagation, for diffusion and flow."""

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
from rewardkit.loops.online import online
from rewardkit.loops.prompts import PromptSet
from rewardkit.objectives.policy import clipped
from rewardkit.policies.diffusion import Denoise, DiffusionPolicy, PathValue
from rewardkit.rewards.learned.tensor import TensorReward
from rewardkit.training.learner import Learner
from rewardkit.types import Sample
from rewardkit.worlds.gaussians import Gaussians

WORLD, HOW, BETA = Gaussians(), Denoise(10), 0.3
PAIRS = 2000
DPO_BETAS = (0.3, 1.0, 3.0, 10.0, 30.0)


class Score(nn.Module):
    """A small network on a point and its prompt."""

    def __init__(self, prompts: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2 + prompts, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, outputs: Tensor, condition: Tensor) -> Tensor:
        return self.net(torch.cat([outputs, condition], -1))


def reward_model(base: DiffusionPolicy, seed: int) -> TensorReward:
    """Bradley-Terry on noisy comparisons of the base policy's own points."""
    drawn = base.sample(WORLD.prompts, 2 * PAIRS // len(WORLD.prompts), sampling=HOW, seed=100 + seed).samples
    judged = WORLD.compare(drawn[0::2], drawn[1::2], seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reward = TensorReward(Score(len(WORLD.prompts)), condition=WORLD.condition)
    return learned(reward, judged, lr=2e-3, epochs=6, batch=64, seed=seed)


def by_policy_gradient(policy: DiffusionPolicy, reward: TensorReward, seed: int) -> None:
    """Against the learned reward."""
    policy_gradient(policy, reward, WORLD.prompts, beta=BETA, lr=3e-4, n=32, steps=120, sampling=HOW, seed=seed)


def by_preferences(policy: DiffusionPolicy, reward: TensorReward, seed: int, *, beta: float) -> None:
    """Pairs of the base policy's own points."""
    drawn = policy.sample(WORLD.prompts * 500, 2, sampling=HOW, seed=200 + seed)
    preferences(policy, drawn, reward, beta=beta, lr=3e-4, epochs=4, seed=seed)


def dpo_beta(base: DiffusionPolicy, seed: int = 100) -> float:
    """The coefficient whose policy has most of what policy gradient goes up, the learned reward less ``BETA`` times the
    KL, on a seed of its own. Gold is not looked at."""
    reward = reward_model(base, seed)

    def regularised(beta: float) -> float:
        policy = copy.deepcopy(base)
        by_preferences(policy, reward, seed, beta=beta)
        drawn = policy.sample(WORLD.prompts, 500, sampling=HOW, seed=seed)
        proxy = reward(drawn).outcome
        assert proxy is not None
        return float(proxy.mean()) - BETA * WORLD.measure(policy, n=500, sampling=HOW)["kl"]

    return max(DPO_BETAS, key=regularised)


def by_backpropagation(policy: DiffusionPolicy, reward: TensorReward, seed: int) -> None:
    """The learned reward's own gradient through the last five steps, with the KL as a second term."""

    def value(points: Tensor, samples: Sequence[Sample]) -> Tensor:
        return reward.of(points, torch.stack([WORLD.condition(s.asked) for s in samples]))

    draw = partial(policy.sample, WORLD.prompts, 32, sampling=HOW)
    want = PathValue(value, last=5)
    backpropagation(policy, lambda s: draw(seed=s), want, beta=BETA, lr=3e-4, steps=120, seed=seed)


def optimum(policy: DiffusionPolicy, seed: int) -> list[dict[str, float]]:
    """Policy gradient on gold itself with a KL in the reward, measured on the way to the closed form."""
    credit = chain(partial(kl_penalty, coef=BETA), rloo, whiten)
    found = []
    for turn in online(
        Learner(policy, lr=3e-4), PromptSet(WORLD.prompts), WORLD.gold, credit, clipped, reference="start", n=32,
        batch=4, inner=2, steps=400, sampling=HOW, seed=seed,
    ):  # fmt: skip
        if turn.step in (1, 25, 50, 100, 200, 400):
            m = WORLD.measure(policy, n=1000, sampling=HOW)
            found.append({"step": turn.step, **m, "objective": m["gold"] - BETA * m["kl"]})
    return found


METHODS: dict[str, Callable[[DiffusionPolicy, TensorReward, int], None]] = {
    "policy gradient": by_policy_gradient,
    "backpropagation": by_backpropagation,
}


def prove(run: Run) -> Proof:
    """Every kind, method and seed."""
    best = [WORLD.regularised(p, BETA) for p in WORLD.prompts]
    highest = sum(gold - BETA * kl for _, gold, kl in best) / len(best)
    proof = Proof("gaussians", f"the optimum of gold - {BETA} KL is {highest:.3f}")
    measure = partial(WORLD.measure, n=1000, sampling=HOW)
    for kind in ("diffusion", "flow"):
        base = WORLD.base_policy(kind)  # type: ignore[arg-type]
        proof.add(kind, "base", 0, measure(base))

        def show(name: str, policy: DiffusionPolicy, kind: str = kind) -> None:
            proof.pictures.append(scatter(f"{kind}: {name}", _points(policy)))

        beta = dpo_beta(base)
        run.say(f"gaussians {kind}: beta of dpo is {beta}")
        methods = METHODS | {"preferences": partial(by_preferences, beta=beta)}
        for seed in range(run.seeds):
            reward = reward_model(base, seed)
            proof.train(run, kind, base, methods, reward, seed, measure=measure, show=show)
            policy = copy.deepcopy(base)
            curve = optimum(policy, seed)
            proof.curves.setdefault(kind, []).append(curve)
            run.say(proof.add(kind, "on gold, 400 turns", seed, {k: v for k, v in curve[-1].items() if k != "step"}))
        show("base", base)
    chance = torch.Generator().manual_seed(0)
    drawn = {p: b.sample(300, chance) for p, (b, _, _) in zip(WORLD.prompts, best, strict=True)}
    proof.pictures.append(scatter("optimum", drawn))
    proof.highest = highest
    return proof


def _points(policy: DiffusionPolicy) -> dict[str, Any]:
    drawn = policy.sample(WORLD.prompts, 300, sampling=HOW, seed=3).samples
    return {p: torch.stack([s.output for s in drawn if s.prompt == p]) for p in WORLD.prompts}
