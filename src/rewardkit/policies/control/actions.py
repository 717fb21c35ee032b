"""What an actor's numbers ``[N, K]`` mean, by the kind of action space: log-probs and entropy (nats, ``[N]``), draws,
modes, and actions as the environment takes them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class Categorical:
    """``n`` actions, numbered from ``start``; outputs are logits. Actions are kept as indices from 0."""

    n: int
    start: int = 0

    def log_prob(self, outputs: Tensor, actions: Tensor) -> Tensor:
        return outputs.log_softmax(-1).gather(-1, actions[:, None])[:, 0]

    def entropy(self, outputs: Tensor) -> Tensor:
        logp = outputs.log_softmax(-1)
        return -(logp.exp() * logp).sum(-1)

    def draw(self, outputs: Tensor, generator: torch.Generator | None) -> Tensor:
        return torch.multinomial(outputs.softmax(-1), 1, generator=generator)[:, 0]

    def mode(self, outputs: Tensor) -> Tensor:
        return outputs.argmax(-1)

    def to_env(self, actions: Tensor) -> np.ndarray:
        return actions.numpy() + self.start


@dataclass(frozen=True, eq=False)
class Gaussian:
    """A diagonal Gaussian over a box; outputs are means, then logs of standard deviations.

    Draws are kept as they fell and clipped to the box for the environment alone, as Stable-Baselines3 does: their
    density is that of the Gaussian.
    """

    low: np.ndarray
    high: np.ndarray

    def log_prob(self, outputs: Tensor, actions: Tensor) -> Tensor:
        mean, log_std = outputs.chunk(2, -1)
        return (-0.5 * ((actions - mean) * (-log_std).exp()).square() - log_std - HALF_LOG_2PI).sum(-1)

    def entropy(self, outputs: Tensor) -> Tensor:
        return (outputs.chunk(2, -1)[1] + 0.5 + HALF_LOG_2PI).sum(-1)

    def draw(self, outputs: Tensor, generator: torch.Generator | None) -> Tensor:
        mean, log_std = outputs.chunk(2, -1)
        return mean + log_std.exp() * torch.randn(mean.shape, generator=generator)

    def mode(self, outputs: Tensor) -> Tensor:
        return outputs.chunk(2, -1)[0]

    def to_env(self, actions: Tensor) -> np.ndarray:
        return np.clip(actions.numpy().reshape(len(actions), *self.low.shape), self.low, self.high)


def actions_of(space: Any) -> Categorical | Gaussian:
    """The distribution that fits a Gymnasium action space.

    Raises:
        ValueError: for a space that is neither ``Discrete`` nor a ``Box`` of floats.
    """
    if isinstance(space, gymnasium.spaces.Discrete):
        return Categorical(int(space.n), int(space.start))
    if isinstance(space, gymnasium.spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return Gaussian(space.low, space.high)
    raise ValueError(f"ControlPolicy acts in Discrete and Box spaces, not {space}: wrap the environment")
