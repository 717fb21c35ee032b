"""World control: a reward on steps from compared segments, then policy gradient, preferences and backpropagation."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.proofs.kit import Proof, Run, backpropagation, learned, policy_gradient, preferences
from rewardkit.policies.control import ControlPolicy, Unrolled
from rewardkit.rewards.learned.step import StepNet, StepReward
from rewardkit.worlds.control import Control, film, trajectories
from rewardkit.worlds.control.physics import advance

WORLD, BETA, PAIRS = Control(), 0.1, 4000


def reward_model(base: ControlPolicy, seed: int) -> StepReward:
    """Bradley-Terry on noisy comparisons of segments, half of them of the base policy and half of demonstrations."""
    episodes = WORLD.draw(base, 4, seed=100 + seed).samples + WORLD.demonstrations(400, seed=100 + seed)
    pieces = WORLD.segments(episodes, 2 * PAIRS, seed=seed)
    judged = WORLD.compare(pieces[0::2], pieces[1::2], seed=seed, noise=1.0, ties=0.1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reward = StepReward(StepNet(14), dense=False)
    return learned(reward, judged, lr=1e-2, epochs=20, batch=64, seed=seed)


def by_policy_gradient(policy: ControlPolicy, reward: StepReward, seed: int) -> None:
    """Against the learned reward; a group is one episode's beginning, acted out eight times."""
    env = WORLD.envs(8 * len(WORLD.prompts))
    policy_gradient(
        policy, reward, WORLD.prompts, beta=BETA, lr=1e-3, n=8, steps=150, env=env, sampling=WORLD.sampling, seed=seed
    )


def by_preferences(policy: ControlPolicy, reward: StepReward, seed: int) -> None:
    """Pairs of whole episodes of the base policy."""
    starts = WORLD.prompts * 10
    drawn = policy.sample(starts, 4, env=WORLD.envs(4 * len(starts)), sampling=WORLD.sampling, seed=200 + seed)
    preferences(policy, drawn, reward, beta=0.3, lr=5e-4, epochs=10, seed=seed)


def by_backpropagation(policy: ControlPolicy, reward: StepReward, seed: int) -> None:
    """The learned reward's gradient through the dynamics and the policy, with the KL as a second term."""
    want = Unrolled(advance, reward.of)
    backpropagation(policy, lambda s: WORLD.draw(policy, 2, seed=s), want, beta=BETA, lr=1e-3, steps=250, seed=seed)


METHODS: dict[str, Callable[[ControlPolicy, StepReward, int], None]] = {
    "policy gradient": by_policy_gradient,
    "preferences": by_preferences,
    "backpropagation": by_backpropagation,
}


def prove(run: Run) -> Proof:
    """Every method and seed."""
    base = WORLD.base_policy()
    shown = WORLD.demonstrations(500, seed=7)
    expert = [s for s in shown if s.hidden["quality"] == "expert"]
    height = WORLD.gold.evaluate(WORLD.gold.encode(expert))["scores"].mean()
    proof = Proof("control", f"the expert among the demonstrators has {float(height):.1f}")
    proof.add("actor", "base", 0, WORLD.measure(base))

    def show(name: str, policy: ControlPolicy) -> None:
        seen = WORLD.draw(policy, seed=3).samples
        proof.pictures.extend([trajectories(name, seen), film(name, seen[2])])

    show("base", base)
    for seed in range(run.seeds):
        reward = reward_model(base, seed)
        proof.train(run, "actor", base, METHODS, reward, seed, measure=WORLD.measure, show=show)
    return proof
