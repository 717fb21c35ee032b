"""Trajectories that nobody rewarded, made into transitions to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rewardkit.credit.placement import place
from rewardkit.data.replay import Replay
from rewardkit.policies.control import transitions
from rewardkit.protocols import Reward
from rewardkit.registry import entry
from rewardkit.types import Sample


@entry(
    "loops:offline_reward_labelling",
    tags=("offline", "control"),
    source="Venkataraman et al. 2024, Real-world offline RL from VLM feedback, arXiv:2411.05273, section IV",
)
def relabelled(samples: Sequence[Sample], policy: Any, reward: Reward, *, seed: int = 0) -> Replay:
    """Every step of the samples with what ``reward`` says of it, ready to be drawn from.

    A learned reward has neither level nor scale: standardise it on these samples first, or the actor's weights explode.

    Args:
        samples: whose outputs are trajectories. policy: encodes them. reward: dense, or of whole trajectories. seed: of
            the draws.

    >>> import numpy as np, torch
    >>> from rewardkit.policies.control import ControlPolicy, Envs, Steps
    >>> from rewardkit.rewards.rules.environment import Environment
    >>> envs = Envs("CartPole-v1", 2)
    >>> policy = ControlPolicy.scratch(envs)
    >>> episodes = policy.sample([0, 1], env=envs, sampling=Steps(5)).samples
    >>> relabelled(episodes, policy, Environment()).draw(4)["rewards"].flatten().tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    rollout = policy.encode(samples)
    rows = transitions(rollout.with_tensors(rewards=place(reward(rollout), rollout)))
    replay = Replay(len(rows), seed=seed)
    replay.add(rows)
    return replay
