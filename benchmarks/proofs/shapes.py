"""World shapes: a reward model on pictures, then policy gradient, preferences and backpropagation through a decoder."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.proofs._pictures import PictureScore, gallery
from benchmarks.proofs.kit import Proof, Run, compared, learned, policy_gradient, preferences
from rewardkit.objectives.path import path_gradient
from rewardkit.objectives.policy import kl as kl_loss
from rewardkit.policies.diffusion import Denoise, DiffusionPolicy, PathValue
from rewardkit.rewards.learned.tensor import TensorReward
from rewardkit.training.learner import Learner
from rewardkit.training.reference import attach_reference
from rewardkit.training.term import Term
from rewardkit.types import Sample
from rewardkit.worlds.shapes import Shapes

WORLD, HOW = Shapes(), Denoise(8, eta=0.6)
PICTURES, TURNS, BETA = 300, 40, 0.01


class Score(PictureScore):
    """Of a picture and its caption."""

    def forward(self, outputs: Tensor, condition: Tensor) -> Tensor:
        return super().forward(2 * outputs - 1, condition)


def reward_model(base: DiffusionPolicy, seed: int) -> TensorReward:
    """Bradley-Terry on noisy comparisons of the base policy's own pictures."""
    drawn = base.sample(WORLD.prompts, PICTURES, sampling=HOW, seed=100 + seed)
    judged = compared(WORLD.compare, drawn, 3, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reward = TensorReward(Score(3, len(WORLD.condition(None))), condition=WORLD.condition)
    return learned(reward, judged, lr=3e-3, epochs=5, batch=32, seed=seed)


def by_policy_gradient(policy: DiffusionPolicy, reward: TensorReward, seed: int) -> None:
    """Against the learned reward (DDPO)."""
    policy_gradient(policy, reward, WORLD.prompts, beta=BETA, lr=5e-4, n=8, steps=TURNS, sampling=HOW, seed=seed)


def by_preferences(policy: DiffusionPolicy, reward: TensorReward, seed: int) -> None:
    """Pairs of the base policy's own pictures (Diffusion-DPO)."""
    drawn = policy.sample(WORLD.prompts * 60, 2, sampling=HOW, seed=200 + seed)
    preferences(policy, drawn, reward, beta=0.5, lr=4e-4, epochs=8, seed=seed)


def backpropagation(policy: DiffusionPolicy, reward: TensorReward, seed: int) -> None:
    """The learned reward's own gradient through the decoder and the last two steps, with the KL as a second term."""

    def value(pictures: Tensor, samples: Sequence[Sample]) -> Tensor:
        return reward.of(pictures, torch.stack([WORLD.condition(s.asked) for s in samples]))

    learner = Learner(policy, lr=1e-4)
    for step in range(TURNS):
        rollout = policy.sample(WORLD.prompts, 8, sampling=HOW, seed=seed * 10_007 + step)
        rollout = attach_reference(rollout, policy.at("start"))
        learner.step(
            Term(rollout, path_gradient, want=(PathValue(value, last=2),)),
            Term(rollout, kl_loss, coef=BETA, reduce="sequence_sums"),
        )


METHODS: dict[str, Callable[[DiffusionPolicy, TensorReward, int], None]] = {
    "policy gradient": by_policy_gradient,
    "preferences": by_preferences,
    "backpropagation": backpropagation,
}


def prove(run: Run) -> Proof:
    """Every method and seed, on the latents of the world's own autoencoder."""
    chance = WORLD.gold.of(WORLD.demonstrations(400, seed=1))
    proof = Proof(
        "shapes", f"demonstrations, a quarter of whose attributes are wrong, have a gold of {chance.mean():.2f}"
    )
    base = WORLD.base_policy()
    proof.add("flow", "base", 0, WORLD.measure(base, sampling=HOW))
    proof.pictures.append(gallery("base", _pictures(base)))
    for seed in range(run.seeds):
        reward = reward_model(base, seed)
        for name, train in METHODS.items():
            policy = copy.deepcopy(base)
            train(policy, reward, seed)
            run.say(proof.add("flow", name, seed, WORLD.measure(policy, sampling=HOW)))
            if seed == 0:
                proof.pictures.append(gallery(name, _pictures(policy)))
    return proof


def _pictures(policy: DiffusionPolicy) -> dict[str, Tensor]:
    drawn = policy.sample(WORLD.prompts, 8, sampling=HOW, seed=3).samples
    return {p: torch.stack([s.output for s in drawn if s.prompt == p]) for p in WORLD.prompts}
