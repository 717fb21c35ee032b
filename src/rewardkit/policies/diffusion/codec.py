"""Between outputs, which people and rewards see, and the states that a sampler walks through."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor


class Codec(Protocol):
    """Outputs to states and back, ``N`` at once; differentiable where its networks are."""

    def encode(self, outputs: Tensor) -> Tensor:
        """States of outputs."""
        ...

    def decode(self, states: Tensor) -> Tensor:
        """Outputs of states."""
        ...


class Pixels:
    """Images in [0, 1] outside, in [-1, 1] inside. What leaves that range is cut off, as diffusers does.

    >>> Pixels().decode(torch.tensor([-1.0, 0.0, 3.0])).tolist()
    [0.0, 0.5, 1.0]
    """

    def encode(self, outputs: Tensor) -> Tensor:
        """``[N, C, H, W]`` in [0, 1] to [-1, 1]."""
        return 2 * outputs - 1

    def decode(self, states: Tensor) -> Tensor:
        """``[N, C, H, W]`` in [-1, 1] to [0, 1]."""
        return ((states + 1) / 2).clamp(0, 1)


class Latents:
    """The latents of an autoencoder, centred and scaled as its config says; the most likely latent, not a drawn one.

    Args:
        vae: diffusers' ``AutoencoderKL`` or its like; it is frozen here, and gradients pass through it.
        batch: images at once.
    """

    def __init__(self, vae: Any, *, batch: int = 64) -> None:
        self.vae, self.batch = vae.requires_grad_(False).eval(), batch
        self.scale = float(vae.config.scaling_factor)
        self.shift = float(getattr(vae.config, "shift_factor", None) or 0.0)

    def encode(self, outputs: Tensor) -> Tensor:
        """Images ``[N, 3, H, W]`` in [0, 1] to latents."""
        found = [self.vae.encode(x).latent_dist.mode() for x in self._moved(2 * outputs - 1)]
        return (torch.cat(found).to(outputs) - self.shift) * self.scale

    def decode(self, states: Tensor) -> Tensor:
        """Latents to images in [0, 1]."""
        found = [self.vae.decode(z).sample for z in self._moved(states / self.scale + self.shift)]
        return Pixels().decode(torch.cat(found).to(states))

    def _moved(self, x: Tensor) -> tuple[Tensor, ...]:
        first = next(self.vae.parameters())
        return x.to(first.device, first.dtype).split(self.batch)
