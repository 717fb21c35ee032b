"""Action values: an ensemble of Q networks for discrete and continuous actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rewardkit.policies.control.actions import Categorical, actions_of
from rewardkit.policies.control.envs import Copies
from rewardkit.policies.control.live import Live
from rewardkit.policies.views import Views
from rewardkit.protocols import Against, Want
from rewardkit.registry import entry
from rewardkit.types import Rollout


class Ensemble(nn.Module):
    """``K`` ReLU networks in one pass, ``[N, D] -> [N, K, outputs]``, each as torch initialises its own.

    Args:
        inputs, outputs: widths. hidden: of the layers between. members: ``K``. seed: of the weights.
    """

    def __init__(self, inputs: int, hidden: Sequence[int], outputs: int, *, members: int = 2, seed: int = 0) -> None:
        super().__init__()
        sizes = [inputs, *hidden, outputs]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            bounds = [n**-0.5 for n in sizes[:-1]]
            self.weights = nn.ParameterList(
                nn.Parameter(torch.empty(members, a, b).uniform_(-s, s))
                for a, b, s in zip(sizes[:-1], sizes[1:], bounds, strict=True)
            )
            self.biases = nn.ParameterList(
                nn.Parameter(torch.empty(members, 1, b).uniform_(-s, s)) for b, s in zip(sizes[1:], bounds, strict=True)
            )

    def forward(self, x: Tensor) -> Tensor:
        x = x.expand(len(self.weights[0]), *x.shape)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = torch.baddbmm(bias, x if i == 0 else x.relu(), weight)
        return x.transpose(0, 1)


def q(values: Tensor, actions: Tensor) -> Tensor:
    """Q of the actions taken, ``[N, K]``: what ``td`` asks for by ``want=(q,)``.

    Args:
        values: ``[N, K, A]`` of every discrete action, or ``[N, K]`` of the continuous one. actions: ``[N, ...]``.
    """
    if values.ndim == 2:
        return values
    return values.gather(-1, actions[:, None, None].expand(-1, values.shape[1], 1))[..., 0]


@entry("policies:control_q", tags=("control", "value"))
class ControlQ(Views):
    """What an action is worth, by ``K`` networks whose least is trusted.

    Target networks are views: ``critic.keep("target")``, moved by :func:`rewardkit.merging.linear.ema`.

    Args:
        module: ``[N, D] -> [N, K, A]`` for ``Discrete`` actions, ``[N, D + A] -> [N, K, 1]`` of observation and action
            for ``Box`` ones. action_space: Gymnasium's.

    >>> from rewardkit.policies.control import Envs
    >>> envs = Envs("Pendulum-v1", 1)
    >>> ControlQ.scratch(envs).of(torch.zeros(5, 3), torch.zeros(5, 1)).shape
    torch.Size([5, 2])
    """

    def __init__(self, module: nn.Module, action_space: Any) -> None:
        self.module, self.discrete = module, isinstance(actions_of(action_space), Categorical)
        self.keep_views()

    @classmethod
    def scratch(cls, envs: Copies, *, hidden: Sequence[int] = (256, 256), members: int = 2, seed: int = 0) -> ControlQ:
        """New networks for these environments."""
        size, space = int(np.prod(envs.observation_space.shape or (1,))), envs.action_space
        kind = actions_of(space)
        inputs, outputs = (size, kind.n) if isinstance(kind, Categorical) else (size + kind.low.size, 1)
        return cls(Ensemble(inputs, hidden, outputs, members=members, seed=seed), space)

    def values(self, observations: Tensor, actions: Tensor) -> Tensor:
        """``[N, K, A]`` of every discrete action, or ``[N, K]`` of the continuous ``actions [N, A]``."""
        if self.discrete:
            return self.module(observations)
        return self.module(torch.cat([observations, actions], -1))[..., 0]

    def of(self, observations: Tensor, actions: Tensor) -> Tensor:
        """``[N, K]`` with gradients, through continuous actions too."""
        return q(self.values(observations, actions), actions)

    def evaluate(self, rollout: Rollout, want: Sequence[Want] = (q,)) -> dict[str, Tensor]:
        """``fn(values, actions) -> [N, ...]`` of the trained positions, as ``[B, T, ...]``; see :meth:`values`.

        Raises:
            KeyError: for a name or another policy.
        """
        live, found = Live(rollout.mask), dict[str, Tensor]()
        actions = live.take(rollout.inputs["actions"])
        values = self.values(live.take(rollout.inputs["observations"]), actions)
        for fn in want:
            if isinstance(fn, str | Against):
                raise KeyError(f"a Q network evaluates functions of its values, want=(q,), not {fn!r}")
            found[fn.__name__] = live.put(fn(values, actions))
        return found
