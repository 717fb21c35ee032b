"""What proofs on pictures share: a small scorer, a gallery, every method and seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.proofs.kit import Proof, Run
from rewardkit.evals.report.charts import drawing
from rewardkit.policies.diffusion import DiffusionPolicy


class PictureScore(nn.Module):
    """A small convolutional network that scores a picture given a code, which shifts and scales every layer.

    Args:
        channels: of the picture, ``[N, channels, H, W]`` in [-1, 1]. code: numbers of the code.
    """

    def __init__(self, channels: int, code: int) -> None:
        super().__init__()
        sizes = (24, 32, 48)
        convolutions = [nn.Conv2d(channels, 24, 5, 2, 2), nn.Conv2d(24, 32, 3, 2, 1), nn.Conv2d(32, 48, 3, 1, 1)]
        self.layers, self.told = nn.ModuleList(convolutions), nn.ModuleList(nn.Linear(code, 2 * n) for n in sizes)
        self.head = nn.Sequential(nn.Linear(2 * 48 + code, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
        for layer, told in zip(self.layers, self.told, strict=True):
            scale, shift = told(code)[:, :, None, None].chunk(2, 1)
            x = functional.silu(layer(x) * (1 + scale) + shift)
        return self.head(torch.cat([x.mean((2, 3)), x.amax((2, 3)), code], 1))


def gallery(name: str, pictures: Mapping[str, Any]) -> str:
    """Pictures ``[N, 3, H, W]`` in [0, 1], a row a label; of clips ``[N, F, 3, H, W]`` the frames side by side."""
    with drawing(len(pictures), 1, 4.6, 0.55 * len(pictures) + 0.3, squeeze=False) as (figure, axes, out):
        figure.suptitle(name, x=0.01, ha="left", fontsize=11.5, fontweight="bold")
        for axis, (label, x) in zip(axes[:, 0], pictures.items(), strict=True):
            frames = [f for one in x for f in (one if one.ndim == 4 else one[None])]
            tiles = [functional.pad(f, (1, 1, 1, 1), value=1.0) for f in frames]
            axis.imshow(torch.cat(tiles, -1).permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest")
            axis.set_title(label, fontsize=8, fontweight="normal", pad=2)
            axis.set_axis_off()
    return out[0]


def on_pictures(
    proof: Proof,
    run: Run,
    base: DiffusionPolicy,
    methods: Mapping[str, Callable[[Any, Any, int], None]],
    reward_model: Callable[[DiffusionPolicy, int], Any],
    *,
    measure: Callable[[Any], Mapping[str, float]],
    pictures: Callable[[DiffusionPolicy], Mapping[str, Any]],
) -> Proof:
    """The base and every method's policy of every seed in figures, those of the first seed in pictures."""
    proof.add("flow", "base", 0, measure(base))

    def show(name: str, policy: DiffusionPolicy) -> None:
        proof.pictures.append(gallery(name, pictures(policy)))

    show("base", base)
    for seed in range(run.seeds):
        proof.train(run, "flow", base, methods, reward_model(base, seed), seed, measure=measure, show=show)
    return proof
