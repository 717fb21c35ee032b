"""World moving_shapes: short clips of a motion, a reward model on clips, and the same three ways of training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.proofs._pictures import PictureScore, on_pictures
from benchmarks.proofs.kit import Proof, Run, backpropagation, compared, learned, policy_gradient, preferences
from rewardkit.policies.diffusion import Denoise, DiffusionPolicy, PathValue
from rewardkit.rewards.learned.tensor import TensorReward
from rewardkit.types import Rollout, Sample
from rewardkit.worlds.moving_shapes import MovingShapes
from rewardkit.worlds.moving_shapes.scene import SIDE
from rewardkit.worlds.moving_shapes.world import CODE

WORLD, HOW = MovingShapes(frames=2), Denoise(8, eta=0.3)
MOVES, TURNS = 500, 30


def told(move: Any) -> Tensor:
    """An instruction's code and the source picture as one row of numbers."""
    said = WORLD.condition(move)
    return torch.cat([said["code"], said["source"].flatten()])


class Score(PictureScore):
    """Of the frames of a clip laid over the source, and the instruction."""

    def forward(self, outputs: Tensor, condition: Tensor) -> Tensor:
        code, source = condition[:, :CODE], condition[:, CODE:].reshape(-1, 3, SIDE, SIDE)
        return super().forward(torch.cat([2 * outputs.flatten(1, 2) - 1, source], 1), code)


def reward_model(base: DiffusionPolicy, seed: int) -> TensorReward:
    """Bradley-Terry on noisy comparisons of the base policy's clips of one move."""
    drawn = base.sample(WORLD.prompts(MOVES, seed=100 + seed), 4, sampling=HOW, seed=100 + seed)
    judged = compared(WORLD.compare, drawn, 3, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reward = TensorReward(Score(3 * WORLD.frames + 3, CODE), condition=told)
    return learned(reward, judged, lr=3e-3, epochs=5, batch=32, seed=seed)


def by_policy_gradient(policy: DiffusionPolicy, reward: TensorReward, seed: int) -> None:
    """Against the learned reward."""
    prompts = WORLD.prompts(8 * TURNS, seed=300 + seed)
    options = {"n": 8, "batch": 8, "steps": TURNS, "sampling": HOW}
    policy_gradient(policy, reward, prompts, beta=0.02, lr=5e-5, seed=seed, **options)


def by_preferences(policy: DiffusionPolicy, reward: TensorReward, seed: int) -> None:
    """Pairs of the base policy's own clips."""
    drawn = policy.sample(WORLD.prompts(300, seed=200 + seed), 4, sampling=HOW, seed=200 + seed)
    preferences(policy, drawn, reward, beta=1.0, lr=5e-5, epochs=3, seed=seed)


def by_backpropagation(policy: DiffusionPolicy, reward: TensorReward, seed: int) -> None:
    """The learned reward's own gradient through the last two steps, with the KL as a second term."""

    def value(clips: Tensor, samples: Sequence[Sample]) -> Tensor:
        return reward.of(clips, torch.stack([told(s.asked) for s in samples]))

    def draw(chance: int) -> Rollout:
        return policy.sample(WORLD.prompts(32, seed=chance), 2, sampling=HOW, seed=chance)

    want = PathValue(value, last=2)
    backpropagation(policy, draw, want, beta=0.05, lr=1e-5, steps=TURNS, seed=seed)


METHODS: dict[str, Callable[[DiffusionPolicy, TensorReward, int], None]] = {
    "policy gradient": by_policy_gradient,
    "preferences": by_preferences,
    "backpropagation": by_backpropagation,
}


def prove(run: Run) -> Proof:
    """Every method and seed; each row of a picture is the source and the two frames of a clip, three times."""
    gold = float(WORLD.gold.of(WORLD.demonstrations(300, seed=1)).mean())
    proof = Proof("moving_shapes", f"demonstrations, half of which do not do as asked, have a gold of {gold:.2f}")
    measure = partial(WORLD.measure, sampling=HOW)
    return on_pictures(proof, run, WORLD.base_policy(), METHODS, reward_model, measure=measure, pictures=_pictures)


def _pictures(policy: DiffusionPolicy) -> dict[str, Tensor]:
    asked = WORLD.prompts(6, seed=7)
    drawn = policy.sample(asked, 3, sampling=HOW, seed=3).samples
    clips = torch.stack([torch.cat([s.asked.picture()[None], s.output]) for s in drawn]).reshape(6, 3, 3, 3, SIDE, SIDE)
    return {f"{k}. {s.prompt.instruction}": c for k, (s, c) in enumerate(zip(asked, clips, strict=True), 1)}
