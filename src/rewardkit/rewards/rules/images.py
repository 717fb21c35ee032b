"""Rules that read pixels."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from rewardkit.registry import entry
from rewardkit.rewards.base import RewardBase
from rewardkit.types import Rollout, Scores


@entry(
    "rewards.rules:compressibility",
    aliases=("jpeg_compressibility",),
    tags=("image", "rule"),
    source="Black et al. 2024 (DDPO), arXiv:2305.13301, section 5.1",
)
class Compressibility(RewardBase):
    """Minus the size of an image as JPEG, in kB; with ``sign=-1`` incompressibility.

    An image is ``[3, H, W]`` or ``[1, H, W]`` in ``[0, 1]``. No gradient reaches the pixels.

    Args:
        quality: of the JPEG. sign: 1 for small files, -1 for large ones.

    >>> from rewardkit.types import Sample
    >>> plain, noise = torch.zeros(3, 16, 16), torch.rand(3, 16, 16)
    >>> rollout = Rollout([Sample("p", plain), Sample("p", noise)], torch.ones(2, 1))
    >>> small, large = Compressibility()(rollout).outcome
    >>> bool(small > large)
    True
    """

    name = "compressibility"

    def __init__(self, *, quality: int = 95, sign: float = 1.0) -> None:
        self.quality, self.sign = quality, sign

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        sizes = [jpeg_bytes(torch.as_tensor(s.output), self.quality) / 1000 for s in rollout.samples]
        return Scores(-self.sign * torch.tensor(sizes, device=rollout.mask.device))


def jpeg_bytes(image: Tensor, quality: int) -> int:
    """Size of an image ``[C, H, W]`` in ``[0, 1]`` as JPEG.

    Raises:
        ValueError: for another shape.
    """
    from PIL import Image

    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"an image is [3, H, W] or [1, H, W], not {tuple(image.shape)}")
    pixels = (image.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    pixels = pixels.expand(3, *pixels.shape[1:]).permute(1, 2, 0).contiguous()
    into = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(into, "JPEG", quality=quality)
    return len(into.getvalue())
