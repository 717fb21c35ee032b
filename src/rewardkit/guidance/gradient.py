"""The gradient of a reward of the clean output that a noisy one is taken for: as a guided policy, and as a proposal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rewardkit.guidance.noisy_reward import noisy_reward_guidance
from rewardkit.guidance.particles import Proposal
from rewardkit.policies.diffusion.policy import DiffusionPolicy
from rewardkit.policies.diffusion.sampling import gaussian_logp
from rewardkit.policies.diffusion.stepwise import NoisyState
from rewardkit.registry import entry

CleanValue = Callable[[Tensor, Any], Tensor]
"""``(outputs [N, ...], what the network is told of each) -> [N]``, with gradients."""


@entry(
    "guidance:dps",
    aliases=("clean_gradient_guidance", "freedom"),
    tags=("diffusion", "flow", "gradients"),
    source="Chung et al. 2023 (DPS), arXiv:2209.14687, eq. 11; Yu et al. 2023 (FreeDoM), arXiv:2303.09833",
)
def dps(policy: DiffusionPolicy, value: CleanValue, weight: float) -> DiffusionPolicy:
    """The policy whose sampler follows ``log p(x_t) + weight * value(x0_hat(x_t))``, by gradients through the network.

    A step is Gaussian like any other, so the result is a diffusion policy with exact log-probs. What it draws is not
    ``p(x) exp(weight * value(x))``: the value of the mean is not the mean of what follows. Particles can correct that,
    see :func:`corrected`.

    Args:
        policy: of any process. value: of clean outputs, in the policy's outer form. weight: nats a unit of value.

    >>> from rewardkit.policies.diffusion import Denoise, Flow, PointNet
    >>> policy = DiffusionPolicy(PointNet(2, width=8, depth=1), Flow(), (2,))
    >>> right = dps(policy, lambda outputs, told: outputs[:, 0], 2.0)
    >>> a, b = (p.sample([None], 1, sampling=Denoise(4, eta=0.0), seed=0).samples[0].output for p in (policy, right))
    >>> bool(b[0] > a[0])
    True
    """
    bare = policy.call

    def seen(x: Tensor, time: Tensor, condition: Any) -> Tensor:
        clean, _ = policy.process.parts(x, bare(policy.module, x, time, condition), time)
        return value(policy.outputs(clean), condition)

    return noisy_reward_guidance(policy, seen, weight)


def corrected(policy: DiffusionPolicy, guided: DiffusionPolicy) -> Proposal:
    """The steps of ``guided`` with ``log p - log q``, for particles that are to follow ``policy`` tilted by a reward.

    Steps that add no noise are the policy's own: no ratio could correct another one.
    """

    def draw(state: NoisyState) -> tuple[Tensor, Tensor]:
        mean, std = policy.transition(state)
        if not bool((std > 0).all()):
            return policy.propose(state)[0][:, 0], torch.zeros(len(state))
        actions, logq = guided.propose(state)
        assert logq is not None
        return actions[:, 0], gaussian_logp(mean, actions[:, 0], std) - logq[:, 0]

    return draw
