"""Gaussian actions squashed into a box, and draws that carry their gradient: what soft actor-critic acts with."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewardkit.policies.control.actions import HALF_LOG_2PI
from rewardkit.protocols import Against, Want
from rewardkit.registry import entry
from rewardkit.types import Rollout

LOG_STD = (-20.0, 2.0)
"""Where the logs of standard deviations are held, as in the authors' code."""


@dataclass(frozen=True, eq=False)
class Squashed:
    """``tanh`` of a diagonal Gaussian; outputs are means, then logs of standard deviations.

    Actions are kept in [-1, 1] and stretched to the box for the environment alone.

    Args:
        low, high: of the box, both finite.
    """

    low: np.ndarray
    high: np.ndarray

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low).all() and np.isfinite(self.high).all()):
            raise ValueError(f"Squashed actions need a finite box, not [{self.low}, {self.high}]")

    def of_noise(self, outputs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Actions ``[N, A]`` made of standard normal noise and their log-densities ``[N]``, both with gradients."""
        mean, log_std = _parts(outputs)
        raw = mean + log_std.exp() * noise
        logp = -0.5 * noise.square() - log_std - HALF_LOG_2PI - _log_slope(raw)
        return raw.tanh(), logp.sum(-1)

    def log_prob(self, outputs: Tensor, actions: Tensor) -> Tensor:
        """Of actions in (-1, 1); those on the edge are held just inside it."""
        mean, log_std = _parts(outputs)
        edge = 1 - torch.finfo(torch.float32).eps
        raw = actions.clamp(-edge, edge).atanh()
        logp = -0.5 * ((raw - mean) * (-log_std).exp()).square() - log_std - HALF_LOG_2PI - _log_slope(raw)
        return logp.sum(-1)

    def entropy(self, outputs: Tensor) -> Tensor:
        raise NotImplementedError("the entropy of a squashed Gaussian has no closed form: use minus the log-density")

    def draw(self, outputs: Tensor, generator: torch.Generator | None) -> Tensor:
        mean, log_std = _parts(outputs)
        return (mean + log_std.exp() * torch.randn(mean.shape, generator=generator)).tanh()

    def mode(self, outputs: Tensor) -> Tensor:
        """The action of the mean."""
        return _parts(outputs)[0].tanh()

    def to_env(self, actions: Tensor) -> np.ndarray:
        unit = actions.numpy().reshape(len(actions), *self.low.shape)
        return (self.low + 0.5 * (unit + 1) * (self.high - self.low)).astype(self.low.dtype)


def _parts(outputs: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_std = outputs.chunk(2, -1)
    return mean, log_std.clamp(*LOG_STD)


def _log_slope(raw: Tensor) -> Tensor:
    """``log(1 - tanh(raw)**2)`` without cancellation."""
    return 2 * (math.log(2) - raw - F.softplus(-2 * raw))


@dataclass(frozen=True)
class Reparameterised:
    """Asked of :meth:`ControlPolicy.evaluate`, for a path gradient through actions that are drawn afresh.

    The draw is that of ``rollout["noise"]`` ``[B, T, A]``, standard normal, so that micro-batches see the same actions.

    Args:
        fn: ``(observations [N, D], actions [N, A], logps [N]) -> [N, ...]``, with gradients. The result is called
            ``soft_path``, as the objective ``sac_actor`` asks for it.
    """

    fn: Callable[[Tensor, Tensor, Tensor], Tensor]

    @property
    def __name__(self) -> str:
        return "soft_path"


def relu_mlp(inputs: int, hidden: Sequence[int], outputs: int, seed: int) -> nn.Sequential:
    """ReLU layers as torch initialises them; the global generator is left as it was."""
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for width in hidden:
            layers += [nn.Linear(inputs, width), nn.ReLU()]
            inputs = width
        layers.append(nn.Linear(inputs, outputs))
    return nn.Sequential(*layers)


def log_alpha(value: Tensor, _: Tensor) -> Tensor:
    """What the objective ``sac_temperature`` asks for by ``want=(log_alpha,)``."""
    return value


@entry("policies:temperature", tags=("control",))
class Temperature:
    """One number for a learner of its own: the log of soft actor-critic's entropy coefficient.

    Args:
        alpha: where it begins.

    >>> Temperature(0.5).alpha
    0.5
    """

    def __init__(self, alpha: float = 1.0) -> None:
        self.module = nn.ParameterList([nn.Parameter(torch.tensor(math.log(alpha)))])

    @property
    def alpha(self) -> float:
        """The coefficient, reward units a nat."""
        return float(self.module[0].detach().exp())

    def evaluate(self, rollout: Rollout, want: Sequence[Want] = (log_alpha,)) -> dict[str, Tensor]:
        """``fn(log alpha [B, T], mask)`` for each function.

        Raises:
            KeyError: for a name or another policy.
        """
        value, found = self.module[0].expand(rollout.mask.shape), dict[str, Tensor]()
        for fn in want:
            if isinstance(fn, str | Against):
                raise KeyError(f"a temperature evaluates functions of its logarithm, want=(log_alpha,), not {fn!r}")
            found[fn.__name__] = fn(value, rollout.mask)
        return found
