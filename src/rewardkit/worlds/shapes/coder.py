"""A small autoencoder of the world's own pictures: 32x32 pixels to 8x8 latents of 4 channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewardkit.protocols import Want
from rewardkit.types import Rollout, Sample

PATCH, LATENT = 4, 4
NOISE = 0.1
"""Added to latents while it is trained, in their own standard deviations: what the decoder must put up with."""


class Coder(nn.Module):
    """Latents of mean 0 and variance 1, and pictures of them; a codec of :class:`rewardkit.policies.diffusion.Codec`.

    Args:
        width: of its layers.

    >>> coder = Coder(8).eval()
    >>> coder.encode(torch.zeros(2, 3, 32, 32)).shape, coder.decode(torch.zeros(2, 4, 8, 8)).shape
    (torch.Size([2, 4, 8, 8]), torch.Size([2, 3, 32, 32]))
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        pixels = 3 * PATCH**2
        self.down = nn.Sequential(nn.Conv2d(pixels, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, LATENT, 1))
        self.scale = nn.BatchNorm2d(LATENT, affine=False, momentum=0.02)
        self.up = nn.Sequential(
            nn.Conv2d(LATENT, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1), nn.SiLU(),
            nn.Conv2d(width, pixels, 1),
        )  # fmt: skip

    def encode(self, outputs: Tensor) -> Tensor:
        """``[N, 3, 32, 32]`` in [0, 1] to ``[N, 4, 8, 8]``."""
        return self.scale(self.down(F.pixel_unshuffle(2 * outputs - 1, PATCH)))

    def draw(self, states: Tensor) -> Tensor:
        """Pictures before they are cut to [0, 1]."""
        return (F.pixel_shuffle(self.up(states), PATCH) + 1) / 2

    def decode(self, states: Tensor) -> Tensor:
        """``[N, 4, 8, 8]`` to ``[N, 3, 32, 32]`` in [0, 1], with gradients."""
        return self.draw(states).clamp(0, 1)


class CoderModel:
    """The autoencoder as a model that a learner can fit: the "log-prob" of a picture is minus its squared error.

    Args:
        module: fitted in place. seed: of the noise on the latents.
    """

    def __init__(self, module: Coder, *, seed: int = 0) -> None:
        self.module, self.chance = module, torch.Generator().manual_seed(seed)

    def encode(self, samples: Sequence[Sample]) -> Rollout:
        """Pictures as rows."""
        inputs: dict[str, Any] = {"pictures": torch.stack([s.output for s in samples])}
        return Rollout(list(samples), torch.ones(len(samples), 1), inputs=inputs)

    def evaluate(self, rollout: Rollout, want: Sequence[Want] = ("logps",)) -> dict[str, Tensor]:
        """``logps`` ``[B, 1]``."""
        x = rollout.inputs["pictures"]
        self.module.scale.train(torch.is_grad_enabled())
        z = self.module.encode(x)
        noisy = z + NOISE * torch.randn(z.shape, generator=self.chance)
        return {"logps": -(self.module.draw(noisy) - x).square().flatten(1).sum(1, keepdim=True)}
