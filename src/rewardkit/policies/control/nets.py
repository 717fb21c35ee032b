"""Small networks on observations, initialised as PPO's reference implementations do."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def mlp(inputs: int, hidden: Sequence[int], outputs: int, gain: float, seed: int) -> nn.Sequential:
    """Tanh layers with orthogonal weights (gain sqrt 2, ``gain`` for the last) and no bias at first.

    The global generator is left as it was. Source: Engstrom et al. 2020, Implementation matters in deep RL, section 3.
    """
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for width in hidden:
            layers += [_linear(inputs, width, 2**0.5), nn.Tanh()]
            inputs = width
        layers.append(_linear(inputs, outputs, gain))
    return nn.Sequential(*layers)


def _linear(inputs: int, outputs: int, gain: float) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


class ActorCritic(nn.Module):
    """An actor and a critic that one learner trains together; they may share layers."""

    def __init__(self, actor: nn.Module, critic: nn.Module) -> None:
        super().__init__()
        self.actor, self.critic = actor, critic

    def forward(self, observations: Tensor) -> Tensor:
        return self.actor(observations)


class GaussianHead(nn.Module):
    """A diagonal Gaussian whose spread does not depend on the observation: ``[N, D] -> [N, 2 A]``, means, then logs."""

    def __init__(self, net: nn.Module, size: int) -> None:
        super().__init__()
        self.net, self.log_std = net, nn.Parameter(torch.zeros(size))

    def forward(self, observations: Tensor) -> Tensor:
        mean = self.net(observations)
        return torch.cat([mean, self.log_std.expand_as(mean)], -1)
