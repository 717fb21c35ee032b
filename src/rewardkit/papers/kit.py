"""What recipes on world ``tokens`` share: comparisons, reward models, PPO, preference training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from rewardkit.credit.base import chain
from rewardkit.credit.group import whiten
from rewardkit.credit.kl import kl_penalty
from rewardkit.credit.returns import gae
from rewardkit.data.rows import attach, comparison_rows
from rewardkit.loops.online import Step, online
from rewardkit.loops.prompts import PromptSet
from rewardkit.objectives.base import Loss
from rewardkit.objectives.policy import clipped
from rewardkit.objectives.reward import bradley_terry
from rewardkit.objectives.value import value_loss
from rewardkit.policies.language import Critic, LanguagePolicy
from rewardkit.protocols import Reward
from rewardkit.rewards.learned.scalar import ScalarReward
from rewardkit.training.fit import fit
from rewardkit.training.learner import Learner
from rewardkit.training.reference import attach_reference
from rewardkit.types import Judgement, Sample
from rewardkit.worlds.annotators import first_wins
from rewardkit.worlds.tokens import Tokens


def comparisons(world: Tokens, policy: LanguagePolicy, n: int, seed: int) -> list[Judgement]:
    """``n`` comparisons of pairs of the policy's own replies, prompts in equal numbers."""
    each = -(-n // len(world.prompts))
    rollout = world.draw(policy, 2 * each, seed)
    return world.compare(rollout, seed)[:n]


def reward_model(
    policy: LanguagePolicy,
    judgements: Sequence[Judgement],
    seed: int,
    *,
    epochs: float = 3,
    size: int = 32,
    lr: float = 1e-3,
    name: str = "reward model",
) -> ScalarReward:
    """A Bradley-Terry reward model on the policy's trunk; ``seed`` draws its head and the order of the data."""
    reward = ScalarReward.from_policy(policy, seed=seed, name=name)
    rows = comparison_rows(judgements)
    learner = Learner(reward, lr=lr, schedule="cosine", warmup=0.1)
    data = attach(reward.encode(rows.samples), rows)
    for _ in fit(learner, data, bradley_terry, epochs=epochs, batch=size, seed=seed):
        pass
    return reward


def preference(
    policy: LanguagePolicy,
    judgements: Sequence[Judgement],
    objective: Callable[..., Loss],
    seed: int,
    *,
    epochs: float,
    size: int = 32,
    lr: float,
) -> LanguagePolicy:
    """The policy, trained in place by a preference objective against its start."""
    rows = comparison_rows(judgements)
    data = attach_reference(attach(policy.encode(rows.samples), rows), policy.at("start"))
    learner = Learner(policy, lr=lr, schedule="cosine", warmup=0.1)
    for _ in fit(learner, data, objective, epochs=epochs, batch=size, seed=seed):
        pass
    return policy


def ppo(
    world: Tokens,
    policy: LanguagePolicy,
    reward: Reward,
    seed: int,
    *,
    steps: int,
    beta: float,
    lr: float,
    n: int = 16,
    critic_from: ScalarReward | None = None,
) -> Iterator[Step]:
    """PPO in place: KL to the start in the reward, GAE, whitened advantages, a critic, two passes a batch.

    Args:
        world: prompts and sampling. policy, reward: what is trained, against what. seed: of everything.
        steps: turns. beta: reward a nat. lr: of policy and critic. n: replies a prompt and turn.
        critic_from: a reward model that the critic begins as; default a new head on the policy's trunk.
    """
    model = Critic.from_policy(policy, seed=seed) if critic_from is None else Critic.from_scalar(critic_from)
    return online(
        Learner(policy, lr=lr),
        PromptSet(world.prompts, seed=seed),
        reward,
        chain(partial(kl_penalty, coef=beta), partial(gae, lam=0.95), whiten),
        clipped,
        reference="start",
        steps=steps,
        n=n,
        batch=len(world.prompts),
        inner=2,
        critic=Learner(model, lr=lr),
        value_objective=partial(value_loss, clip=0.2),
        sampling=world.sampling,
        seed=seed,
    )


def preferred(world: Tokens, policy: LanguagePolicy, seed: int, *, n: int = 32) -> float:
    """How often an annotator prefers a reply to one of the policy's start, on ``n`` fresh pairs a prompt.

    What a person who tunes has: noisy judgements with the annotator's bias, never gold.
    """
    new, old = world.draw(policy, n, 20_000 + seed), world.draw(policy.at("start"), n, 30_000 + seed)
    return share_won(world, new.samples, old.samples, seed)


def share_won(world: Tokens, first: Sequence[Sample], second: Sequence[Sample], seed: int) -> float:
    """How often the annotators of ``world`` prefer the first of a pair."""
    gaps = [world.liking(a) - world.liking(b) for a, b in zip(first, second, strict=True)]
    return float(first_wins(np.array(gaps) / world.noise, np.random.default_rng(seed)).mean())
