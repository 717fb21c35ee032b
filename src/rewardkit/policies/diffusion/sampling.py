"""How a diffusion policy draws its steps, and the density of a draw."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Denoise:
    """How a diffusion policy samples.

    Args:
        steps: denoising steps, the policy's time axis. eta: noise of a step; at 0 it is deterministic and has no
            density, so nothing can be trained on it by policy gradient.
        guidance: weight of classifier-free guidance, or ``None``. The guided mean is what a step draws from, and what
            its log-prob is of: guidance is part of the policy.
        stop: the step before which to stop: the outputs are then :class:`Latent`, to be continued from there.
    """

    steps: int = 10
    eta: float = 1.0
    guidance: float | None = None
    stop: int | None = None

    @property
    def calls(self) -> int:
        """Calls of the network for one output."""
        return self.steps * (1 if self.guidance is None else 2)

    def __post_init__(self) -> None:
        if self.steps < 1 or self.eta < 0:
            raise ValueError(f"Denoise needs at least one step and eta >= 0, not {self.steps} and {self.eta}")
        if self.stop is not None and not 0 <= self.stop <= self.steps:
            raise ValueError(f"Denoise.stop lies between 0 and the {self.steps} steps, not at {self.stop}")


@dataclass(frozen=True, eq=False)
class Latent:
    """A partial output, ``Sample.output`` where ``ended`` is ``cut``: the state ``x`` before a step of the sampler.

    A diffusion policy continues it: ``policy.sample([Sample(prompt, Latent(x, 6), ended="cut")], n)`` gives ``n`` ends.
    """

    x: Tensor
    step: int


def gaussian_logp(mean: Tensor, x: Tensor, std: Tensor, *, density: bool = True) -> Tensor:
    """Log-density of ``x`` under independent Gaussians, summed over all but the first axis: ``[N]``, nats.

    Without ``density`` the normalising constant is left out: minus half the squared error at ``std`` 1.
    """
    apart = ((x.detach() - mean) / std).square()
    constant = 2 * std.log() + math.log(2 * math.pi) if density else torch.zeros_like(std)
    return -0.5 * (apart + constant).flatten(1).sum(1)
