"""World shapes: a reward model on pictures, then policy gradient, preferences and backpropagation through a decoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from benchmarks.proofs._pictures import PictureScore, on_pictures
from benchmarks.proofs.kit import Proof, Run, backpropagation, compared, learned, policy_gradient, preferences
from rewardkit.policies.diffusion import Denoise, DiffusionPolicy, PathValue
from rewardkit.rewards.learned.tensor import TensorReward
from rewardkit.types import Sample
from rewardkit.worlds.shapes import Shapes

WORLD, HOW = Shapes(), Denoise(8, eta=0.6)
PICTURES, TURNS = 600, 40


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
    return learned(reward, judged, lr=2e-3, epochs=5, batch=32, seed=seed)


def by_policy_gradient(policy: DiffusionPolicy, reward: TensorReward, seed: int) -> None:
    """Against the learned reward (DDPO)."""
    policy_gradient(policy, reward, WORLD.prompts, beta=0.01, lr=2e-4, n=16, steps=TURNS, sampling=HOW, seed=seed)


def by_preferences(policy: DiffusionPolicy, reward: TensorReward, seed: int) -> None:
    """Best against worst of eight of the base policy's own pictures (Diffusion-DPO)."""
    drawn = policy.sample(WORLD.prompts * 60, 8, sampling=HOW, seed=200 + seed)
    preferences(policy, drawn, reward, beta=0.5, lr=4e-4, epochs=8, seed=seed)


def by_backpropagation(policy: DiffusionPolicy, reward: TensorReward, seed: int) -> None:
    """The learned reward's own gradient through the decoder and the last two steps, with the KL as a second term."""

    def value(pictures: Tensor, samples: Sequence[Sample]) -> Tensor:
        return reward.of(pictures, torch.stack([WORLD.condition(s.asked) for s in samples]))

    draw = partial(policy.sample, WORLD.prompts, 8, sampling=HOW)
    want = PathValue(value, last=2)
    backpropagation(policy, lambda s: draw(seed=s), want, beta=0.03, lr=3e-4, steps=TURNS, seed=seed)


METHODS: dict[str, Callable[[DiffusionPolicy, TensorReward, int], None]] = {
    "policy gradient": by_policy_gradient,
    "preferences": by_preferences,
    "backpropagation": by_backpropagation,
}


def prove(run: Run) -> Proof:
    """Every method and seed, on the latents of the world's own autoencoder."""
    chance = WORLD.gold.of(WORLD.demonstrations(400, seed=1))
    proof = Proof(
        "shapes", f"demonstrations, a quarter of whose attributes are wrong, have a gold of {chance.mean():.2f}"
    )
    measure = partial(WORLD.measure, sampling=HOW)
    return on_pictures(proof, run, WORLD.base_policy(), METHODS, reward_model, measure=measure, pictures=_pictures)


def _pictures(policy: DiffusionPolicy) -> dict[str, Tensor]:
    drawn = policy.sample(WORLD.prompts, 8, sampling=HOW, seed=3).samples
    return {p: torch.stack([s.output for s in drawn if s.prompt == p]) for p in WORLD.prompts}
