"""What the proof and the recipes on world ``motifs`` share: backpropagation through a relaxed sampler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rewardkit.objectives.path import discrete_path_kl, path_gradient
from rewardkit.policies.masked import GumbelValue, MaskedPolicy, PathKL, Unmask
from rewardkit.rewards.learned.tensor import TensorReward
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Sample


def backpropagation(
    policy: MaskedPolicy,
    reward: TensorReward,
    prompts: Sequence[Any],
    *,
    alpha: float,
    last: int,
    n: int,
    steps: int,
    lr: float,
    sampling: Unmask,
    seed: int,
) -> MaskedPolicy:
    """DRAKES: the reward's own gradient through the last steps, and the KL of rates to the start along the same path.

    Args:
        policy: trained in place. reward: of one-hot rows. alpha: reward a nat; at 0 there is no KL. last: steps with
            gradient. n: samples a prompt and update. steps: updates. lr, sampling, seed: as everywhere.
    """

    def value(x: Tensor, samples: Sequence[Sample]) -> Tensor:
        return reward.of(x, torch.stack([reward.condition(s.asked) for s in samples]))

    path: Any = GumbelValue(value, last=last)
    learner = Learner(policy, lr=lr)
    for step in range(steps):
        rollout = policy.sample(prompts, n, sampling=sampling, seed=seed * 10_007 + step)
        terms = [Term(rollout, path_gradient, want=(path,))]
        if alpha:
            kl: Any = PathKL(policy.at("start"), along=path)
            terms.append(Term(rollout, discrete_path_kl, coef=alpha, reduce="sequence_sums", want=(kl,)))
        learner.step(*terms)
    return policy
