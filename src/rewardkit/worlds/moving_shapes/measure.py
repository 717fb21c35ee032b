"""What moved in a picture, read off the colours; and how that compares with what was asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rewardkit.rewards.base import RewardBase
from rewardkit.rewards.rules.optical_flow import OpticalFlowAlignment
from rewardkit.types import Rollout, Sample, Scores
from rewardkit.worlds.moving_shapes.scene import COLOURS, SIDE, Move

LEAST = 0.4
"""Share of a thing's mass that must still be there for its motion to be known; else it counts as not having moved."""


def masses(frames: Tensor) -> Tensor:
    """How much of each pixel is each colour, ``[..., 3, H, W]`` to ``[..., K, H, W]`` in [0, 1], differentiable.

    By least squares on the palette, which has as many colours as there are channels.
    """
    palette = torch.tensor(list(COLOURS.values())) - 0.05
    return torch.einsum("...chw,ck->...khw", frames - 0.05, torch.linalg.inv(palette).to(frames)).clamp(0, 1)


@dataclass(frozen=True)
class Seen:
    """What became of the two things.

    Args:
        shifts: of each, ``(x, y)`` pixels; 0 where it is gone. kept: share of each one's mass that is left, at most 1.
        still: mean difference from the source over pixels that nothing that should move touches.
    """

    shifts: tuple[tuple[float, float], tuple[float, float]]
    kept: tuple[float, float]
    still: float


def see(move: Move, frame: Tensor) -> Seen:
    """Of one frame ``[3, H, W]`` against the source of a move."""
    source, line = move.picture(), torch.arange(SIDE) + 0.5
    before, after = masses(source), masses(frame.detach().float().cpu())
    before, after = (torch.where(m > 0.15, m, torch.zeros_like(m)) for m in (before, after))
    shifts, kept = [], []
    for thing in move.things:
        k = list(COLOURS).index(thing.colour)
        a, b = before[k], after[k]
        share = float(b.sum() / a.sum())
        gone = not LEAST <= share <= 1 / LEAST
        dx = float((b.sum(0) * line).sum() / b.sum().clamp(min=1e-6) - (a.sum(0) * line).sum() / a.sum())
        dy = float((b.sum(1) * line).sum() / b.sum().clamp(min=1e-6) - (a.sum(1) * line).sum() / a.sum())
        shifts.append((0.0, 0.0) if gone else (dx, dy))
        kept.append(min(share, 1.0))
    touched = (source - move.picture(1.0)).abs().amax(0) > 0.02
    rest = (frame.detach().float().cpu() - source).abs().mean(0)[~touched]
    return Seen((shifts[0], shifts[1]), (kept[0], kept[1]), float(rest.mean()))


def last(output: Any) -> Tensor:
    """The end of an output, a clip ``[F, 3, H, W]`` or a picture ``[3, H, W]``."""
    frames = torch.as_tensor(output)
    return frames[-1] if frames.ndim == 4 else frames


def flows(sample: Sample) -> tuple[Tensor, Tensor]:
    """The flow from the source to a sample's last frame, and the one asked for: ``[2, H, W]`` each, pixels."""
    move = sample.asked
    return move.flow(see(move, last(sample.output)).shifts), move.flow()


def flow_reward(*, move: bool = True, levels: int | None = 5) -> OpticalFlowAlignment:
    """Alignment of motion over the pixels that move; ``move`` False leaves the term out that prices staying still."""
    weights = (0.7, 0.2, 0.1) if move else (0.7, 0.2, 0.0)
    return OpticalFlowAlignment(flows, weights=weights, levels=levels, over="moving", name="optical_flow")


class Similarity(RewardBase):
    """How much a picture looks like the true edit at a glance: colours of blocks of 4x4 pixels, 1 where they are equal.

    It sees that the things are there, whole and of their colour; a motion within a block it hardly sees.
    """

    name = "similarity"

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        pool = torch.nn.functional.avg_pool2d
        ends = torch.stack([last(s.output).float().cpu() for s in rollout.samples])
        true = torch.stack([s.asked.picture(1.0) for s in rollout.samples])
        apart = (pool(ends, 4) - pool(true, 4)).abs().flatten(1).mean(1)
        return Scores((1 - 4 * apart).clamp(min=0).to(rollout.mask.device))


class Gold(RewardBase):
    """Whether the clip does what was asked and nothing else, in [0, 1]: half the error of the moved thing's end points,
    half what became of the rest.

    Of a clip, every frame counts, each against its share of the way.
    """

    name = "gold"

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        return Scores(self.of(rollout.samples).to(rollout.mask.device))

    def of(self, samples: Sequence[Sample]) -> Tensor:
        """``[N]``."""
        return torch.tensor([_score(s.asked, torch.as_tensor(s.output)) for s in samples])


def _score(move: Move, output: Tensor) -> float:
    frames = output if output.ndim == 4 else output[None]
    found = []
    for k, frame in enumerate(frames):
        seen, share = see(move, frame), (k + 1) / len(frames)
        apart = sum((a - share * b) ** 2 for a, b in zip(seen.shifts[0], move.shift, strict=True)) ** 0.5
        gone = min(seen.kept) < LEAST
        moved = 0.0 if gone else max(0.0, 1 - apart / max(1.5, share * sum(abs(s) for s in move.shift)))
        drift = sum(s**2 for s in seen.shifts[1]) ** 0.5
        found.append(0.5 * moved + 0.5 * max(0.0, 1 - 8 * seen.still - 0.3 * drift))
    return sum(found) / len(found)
