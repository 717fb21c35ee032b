"""World driving: a reward on steps from compared episodes, then policy gradient and preferences, for a careless driver.

The world's dynamics are arrays of numpy: no gradient comes through them, and there is no backpropagation here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.proofs.kit import Proof, Run, gold_by_kl, learned, policy_gradient, preferences
from rewardkit.policies.control import ControlPolicy
from rewardkit.rewards.learned.step import StepNet, StepReward
from rewardkit.worlds.driving import Driving, tracks
from rewardkit.worlds.driving.physics import FACTS, SENSES

WORLD, BETA, PAIRS = Driving(continuous=True), 0.02, 3000
COMPARED = Driving(200, first=1_000_000, continuous=True)
"""Tracks whose episodes are compared, by annotators or as pairs for the policy."""
UNSEEN = Driving(96, first=2_000_000, continuous=True)
"""Tracks for figures alone."""


def reward_model(base: ControlPolicy, seed: int) -> StepReward:
    """Bradley-Terry on noisy comparisons of whole episodes: of the base policy, of a careful driver, and of one who
    never learned to drive and often comes to a halt."""
    drawn = [COMPARED.draw(base, 4, seed=100 + seed), COMPARED.draw(COMPARED.policy(), 2, seed=100 + seed)]
    episodes = [s for r in (*drawn, COMPARED.careful(noise=0.3, seed=100 + seed)) for s in r.samples]
    chance = torch.Generator().manual_seed(seed)
    pairs = torch.stack([torch.randperm(len(episodes), generator=chance)[:2] for _ in range(PAIRS)])
    both = [base.encode([episodes[i] for i in rows]) for rows in pairs.T.tolist()]
    judged = COMPARED.compare(*both, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reward = StepReward(StepNet(2 * (len(SENSES) + len(FACTS)) + 2), dense=False)
    return learned(reward, judged, lr=3e-3, epochs=10, batch=32, seed=seed)


def by_policy_gradient(policy: ControlPolicy, reward: StepReward, seed: int) -> None:
    """Against the learned reward; a group is one track, driven four times."""
    env = WORLD.envs(4 * len(WORLD.prompts))
    policy_gradient(
        policy, reward, WORLD.prompts, beta=BETA, lr=3e-3, n=4, steps=60, env=env, sampling=WORLD.sampling, seed=seed
    )


def by_preferences(policy: ControlPolicy, reward: StepReward, seed: int) -> None:
    """Pairs of whole episodes of the base policy on one track."""
    drawn = COMPARED.draw(policy, 8, seed=200 + seed)
    preferences(policy, drawn, reward, beta=0.1, lr=2e-3, epochs=20, seed=seed)


METHODS: dict[str, Callable[[ControlPolicy, StepReward, int], None]] = {
    "policy gradient": by_policy_gradient,
    "preferences": by_preferences,
}


def measure(policy: ControlPolicy) -> dict[str, float]:
    """Figures of the world on tracks that nothing was trained on, and the ``variety`` of speeds."""
    found = UNSEEN.measure(policy, n=4) | {"variety": UNSEEN.variety(UNSEEN.draw(policy, 4, seed=9))}
    return {name: found[name] for name in ("gold", "completion", "collision", "red_run", "variety", "kl")}


def prove(run: Run) -> Proof:
    """Every method and seed."""
    base = WORLD.base_policy()
    note = "a careful driver has 100; the track is no differentiable program, so nothing is trained by backpropagation"
    proof = Proof("driving", note)
    proof.add("actor", "base", 0, measure(base))

    def show(name: str, policy: ControlPolicy) -> None:
        proof.pictures.append(tracks(UNSEEN.draw(policy, seed=3).samples[:4], title=f"{name}:"))

    show("base", base)
    for seed in range(run.seeds):
        reward = reward_model(base, seed)
        proof.train(run, "actor", base, METHODS, reward, seed, measure=measure, show=show)
    proof.pictures.insert(0, gold_by_kl(proof.rows))
    return proof
