"""Learning from transitions: updates made of terms on several learners, and the loop that collects between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rewardkit.credit.bellman import exponential_weight, td_target
from rewardkit.credit.placement import place
from rewardkit.data.replay import Replay, Source
from rewardkit.merging.linear import ema
from rewardkit.needs import Column
from rewardkit.objectives.imitation import sft
from rewardkit.objectives.offpolicy import expectile, sac_actor, sac_temperature, td
from rewardkit.policies.control import Reparameterised, Steps, log_alpha, q, transitions
from rewardkit.policies.weights import read, write
from rewardkit.protocols import Reward
from rewardkit.registry import entry
from rewardkit.rewards.rules.environment import Environment
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Rollout, Sample

Update = Callable[[Rollout], dict[str, float]]
"""One gradient step of every learner on a batch of transitions; returns what is to be logged."""


@entry(
    "loops.offpolicy:sac",
    aliases=("objectives.policy:sac",),
    tags=("off-policy", "continuous"),
    source="Haarnoja et al. 2018, Soft actor-critic algorithms and applications, arXiv:1812.05905, algorithm 1",
)
def sac(
    actor: Learner,
    critic: Learner,
    temperature: Learner,
    *,
    gamma: float = 0.99,
    rate: float = 0.005,
    target_entropy: float | None = None,
    seed: int = 0,
) -> Update:
    """Soft actor-critic: ``td`` towards a soft target, then a path gradient through Q, then the temperature.

    Batches need ``rewards`` and ``terminal``. The target network is the critic's view ``target``, kept now.

    Args:
        actor: of a squashed :class:`ControlPolicy`. critic: of a :class:`ControlQ`. temperature: of a
            :class:`Temperature`. gamma: discount a step. rate: of the target's moving average.
        target_entropy: nats; default minus the number of action axes. seed: of the actions drawn in updates.

    >>> from rewardkit.policies.control import ControlPolicy, ControlQ, Envs, Temperature
    >>> envs = Envs("Pendulum-v1", 1)
    >>> policy = ControlPolicy.scratch(envs, squashed=True, hidden=(8,))
    >>> update = sac(Learner(policy), Learner(ControlQ.scratch(envs, hidden=(8,))), Learner(Temperature()))
    >>> rows = transitions(policy.sample([0], env=envs, sampling=Steps(4), seed=0))
    >>> "td/loss" in update(rows.with_tensors(rewards=rows["env_rewards"]))
    True
    """
    policy, values, heat = _model(actor), _model(critic), _model(temperature)
    target = values.keep("target")
    chance = torch.Generator().manual_seed(seed)

    def judged(observations: Tensor, actions: Tensor, logps: Tensor) -> Tensor:
        return torch.stack([values.of(observations, actions).amin(-1), logps], -1)

    def update(batch: Rollout) -> dict[str, float]:
        shape = (len(batch), 1, batch.inputs["actions"].shape[-1])
        ahead, noise = (torch.randn(shape, generator=chance) for _ in range(2))
        alpha = heat.alpha
        with torch.no_grad():
            reached = batch.inputs["next_observations"][:, 0]
            actions, logps = policy.actions.of_noise(policy.module(reached), ahead[:, 0])
            soft = target.of(reached, actions).amin(-1) - alpha * logps
        made = td_target(batch["rewards"], soft[:, None], batch["terminal"], batch.mask, gamma=gamma)
        batch = batch.with_tensors(returns=made["returns"], noise=noise)
        found = critic.step(Term(batch, td, want=(q,)))
        with frozen(values.module):
            path: Any = Reparameterised(judged)
            found |= actor.step(Term(batch, partial(sac_actor, alpha=alpha), want=(path,)))
        found |= _heat(
            temperature, -found["sac_actor/entropy"], shape[-1] if target_entropy is None else -target_entropy
        )
        write(target, ema(read(target), read(values), rate))
        return found

    return update


def _heat(temperature: Learner, logp: float, below: float) -> dict[str, float]:
    """One step of the temperature: its loss is linear in the log-probs, so their mean is all that it needs."""
    one = Rollout([Sample(None)], torch.ones(1, 1), tensors={"old_logps_drawn": torch.full((1, 1), logp)})
    return temperature.step(Term(one, partial(sac_temperature, target_entropy=-below), want=(log_alpha,)))


@entry(
    "loops.offpolicy:iql",
    aliases=("objectives.policy:iql",),
    tags=("off-policy", "offline"),
    source="Kostrikov et al. 2022, arXiv:2110.06169, algorithm 1",
)
def iql(
    actor: Learner,
    critic: Learner,
    value: Learner,
    *,
    gamma: float = 0.99,
    tau: float = 0.7,
    beta: float = 3.0,
    rate: float = 0.005,
) -> Update:
    """Implicit Q-learning: V by ``expectile``, Q by ``td`` on V of the next state, the actor by weighted ``sft``.

    No action is ever asked of Q that is not in the data. Batches need ``rewards`` and ``terminal``.

    Args:
        actor: of any :class:`ControlPolicy`. critic: of a :class:`ControlQ`. value: of a :class:`ControlCritic`.
        gamma: discount a step. tau: expectile. beta: nats of the actor's weights a reward unit. rate: of the target
            network's moving average.

    >>> from rewardkit.policies.control import ControlCritic, ControlPolicy, ControlQ, Envs
    >>> envs = Envs("CartPole-v1", 1)
    >>> policy = ControlPolicy.scratch(envs, hidden=(8,))
    >>> learners = [Learner(m) for m in (policy, ControlQ.scratch(envs, hidden=(8,)), ControlCritic.scratch(envs))]
    >>> rows = transitions(policy.sample([0], env=envs, sampling=Steps(4), seed=0))
    >>> sorted(iql(*learners)(rows.with_tensors(rewards=rows["env_rewards"])))[:3]
    ['expectile/advantage', 'expectile/empty', 'expectile/loss']
    """
    values, states = _model(critic), _model(value)
    target = values.keep("target")

    def update(batch: Rollout) -> dict[str, float]:
        with torch.no_grad():
            batch = batch.with_tensors(old_q=target.evaluate(batch, (q,))["q"].amin(-1))
        found = value.step(Term(batch, partial(expectile, tau=tau)))
        with torch.no_grad():
            now = states.evaluate(batch, ("values",))["values"]
            ahead = states.module(batch.inputs["next_observations"])[..., 0]
        made = td_target(batch["rewards"], ahead, batch["terminal"], batch.mask, gamma=gamma)
        made |= exponential_weight(batch["old_q"], now, batch.mask, beta=beta)
        batch = batch.with_tensors(**made)
        found |= actor.step(Term(batch, partial(sft, weight=Column("imitation"))))
        found |= critic.step(Term(batch, td, want=(q,)))
        write(target, ema(read(target), read(values), rate))
        return found

    return update


@dataclass(frozen=True, eq=False)
class Collected:
    """One turn of :func:`replayed`.

    Args:
        steps: of the environment so far, over all copies. rollout: what was just sampled.
        metrics: of the last update; empty before the first.
    """

    steps: int
    rollout: Rollout
    metrics: dict[str, float]


@entry("loops:replayed", tags=("off-policy",))
def replayed(
    policy: Any,
    env: Any,
    replay: Replay,
    update: Update,
    *,
    reward: Reward | None = None,
    steps: int,
    each: int = 1,
    batch: int = 256,
    updates: int = 1,
    begin: int = 100,
    source: Source | None = None,
    seed: int = 0,
) -> Iterator[Collected]:
    """Act, score, remember, update: as an iterator, whose for-body measures, saves or stops.

    Args:
        policy: acts in ``env`` and is trained by ``update``. replay: where its transitions go, with their ``rewards``.
        update: such as :func:`sac`. reward: of each step, by default the environment's own.
        steps: of the environment, over all copies. each: steps of a copy between updates.
        batch: transitions an update. updates: after each turn. begin: transitions before the first update.
        source: where batches come from, by default ``replay``; :class:`rewardkit.data.replay.Mixed` mixes in others.
        seed: of the actions.

    >>> from rewardkit.policies.control import ControlPolicy, Envs
    >>> envs, replay = Envs("CartPole-v1", 2), Replay(100)
    >>> policy = ControlPolicy.scratch(envs)
    >>> [turn.steps for turn in replayed(policy, envs, replay, lambda rows: {}, steps=8, each=2)], len(replay)
    ([4, 8], 8)
    """
    judge, done, turn = reward or Environment(), 0, 0
    while done < steps:
        turn += 1
        rollout = policy.sample(range(env.copies), env=env, sampling=Steps(each), seed=seed * 1_000_003 + turn)
        rollout = rollout.with_tensors(rewards=place(judge(rollout), rollout))
        replay.add(transitions(rollout))
        done += each * env.copies
        metrics: dict[str, float] = {}
        for _ in range(updates if replay.added >= begin else 0):
            metrics = update((source or replay).draw(batch))
        yield Collected(done, rollout, metrics)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Gradients flow through a module inside, and none is computed for its weights."""
    asked = [p for p in module.parameters() if p.requires_grad]
    for p in asked:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in asked:
            p.requires_grad_(True)


def _model(learner: Learner) -> Any:
    return learner.model
