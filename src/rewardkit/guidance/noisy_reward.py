"""Reward guidance on noisy states: the reward's own gradient bends every step of a sampler, and no weights change."""

from __future__ import annotations

import copy
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rewardkit.policies.diffusion.policy import DiffusionPolicy
from rewardkit.policies.diffusion.process import like
from rewardkit.registry import entry

CLEAREST = 0.02
"""Share of the data in a state below which no more is asked of the reward: at a share of 0 the step has no bound."""


class NoisyValue(Protocol):
    """A differentiable reward of noisy states, such as :meth:`rewardkit.rewards.learned.noisy.NoisyReward.value`."""

    def __call__(self, x: Tensor, time: Tensor, condition: Any) -> Tensor:
        """``[N, ...]``, ``[N]`` and what the network is told to ``[N]``."""
        ...


@entry(
    "guidance:noisy_reward_guidance",
    tags=("diffusion", "flow", "gradients"),
    source="Liu et al. 2025 (VideoAlign), arXiv:2501.13918, section 4.3: Flow-NRG",
)
def noisy_reward_guidance(policy: DiffusionPolicy, reward: NoisyValue, weight: float) -> DiffusionPolicy:
    """The policy whose sampler follows ``log p(x_t) + weight * reward(x_t, t)``.

    With ``g`` the gradient of the reward at a state ``x = a clean + b noise``, the network's word on the two becomes::

        noise' = noise - weight b g,    clean' = clean + weight b^2 / a g

    which for a flow, ``a = 1 - t`` and ``b = t``, is the paper's ``v' = v - weight t / (1 - t) g``. A composed reward
    is a function that adds others: its weights are chosen when sampling. A guided step is Gaussian like any other, so
    the result has exact log-probs and is a diffusion policy in every respect; it begins with the views of ``policy``,
    unguided, and those that it keeps are its own.

    Args:
        policy: of any process. reward: trained on states as noisy as those it will see; a reward of clean outputs is
            misled by noise. weight: 0 leaves the policy as it is.

    >>> from rewardkit.policies.diffusion import Denoise, Flow, PointNet
    >>> policy = DiffusionPolicy(PointNet(2, width=8, depth=1), Flow(), (2,))
    >>> right = noisy_reward_guidance(policy, lambda x, time, condition: x[:, 0], 2.0)
    >>> a, b = (p.sample([None], 1, sampling=Denoise(4, eta=0.0), seed=0).samples[0].output for p in (policy, right))
    >>> bool(b[0] > a[0])
    True
    """
    guided, bare = copy.copy(policy), policy.call

    def call(module: nn.Module, x: Tensor, time: Tensor, condition: Any) -> Tensor:
        output = bare(module, x, time, condition)
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            (g,) = torch.autograd.grad(reward(leaf, time, condition).sum(), leaf)
        a, b = (like(s, x) for s in policy.process.scales(time))
        clean, noise = policy.process.parts(x, output, time)
        clean, noise = clean + weight * b.square() / a.clamp(min=CLEAREST) * g, noise - weight * b * g
        return policy.process.noised(clean, noise, time)[1]

    guided.call, guided._views = call, dict(policy._views)
    return guided
