"""Compressibility is what the file takes."""

from __future__ import annotations

import io

import pytest
import torch

from rewardkit.rewards.rules.images import Compressibility
from rewardkit.types import Rollout, Sample


def rollout(*images: torch.Tensor) -> Rollout:
    return Rollout([Sample("p", x) for x in images], torch.ones(len(images), 1))


def test_the_score_is_minus_the_files_size_in_kilobytes() -> None:
    from PIL import Image

    image = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0))
    into = io.BytesIO()
    Image.fromarray((image.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()).save(into, "JPEG", quality=95)
    scores = Compressibility()(rollout(image)).outcome
    assert scores is not None
    assert scores.tolist() == pytest.approx([-len(into.getvalue()) / 1000])


def test_flat_images_are_smaller_and_the_sign_turns_it_round() -> None:
    flat, noise = torch.full((1, 32, 32), 0.5), torch.rand(3, 32, 32)
    small, large = (Compressibility(sign=sign)(rollout(flat, noise)).outcome for sign in (1.0, -1.0))
    assert small is not None
    assert large is not None
    assert small[0] > small[1]
    assert torch.equal(small, -large)
    lower = Compressibility(quality=30)(rollout(noise)).outcome
    assert lower is not None
    assert lower[0] > small[1]
    with pytest.raises(ValueError, match=r"\[3, H, W\]"):
        Compressibility()(rollout(torch.zeros(8, 8)))
