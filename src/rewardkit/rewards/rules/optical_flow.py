"""Whether a picture moved what it should, where it should: optical flow against the flow of the true edit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from rewardkit.registry import entry
from rewardkit.rewards.base import RewardBase
from rewardkit.types import Rollout, Sample, Scores

MOVING = 0.002
"""Flow, in diagonals of the picture, from which a pixel moves."""
LEAST = 0.01
"""Flow that is asked for in any case, diagonals."""
POWER, TINY = 0.4, 1e-6


def distances(found: Tensor, asked: Tensor, *, over: Literal["picture", "moving"] = "picture") -> dict[str, Tensor]:
    """How far a flow is from the one asked for: ``magnitude``, ``direction`` and ``move``, ``[N]`` each.

    ``magnitude`` is the mean of ``(|found - asked| + 1e-6)**0.4``; ``direction`` the mean of ``(1 - cosine) / 2`` over
    pixels that should move; ``move`` is ``0.01 + mean|asked| / 2 - mean|found|``, at least 0: what does not move
    pays, where an error of the end point alone would let a small motion pass unmade.

    Args:
        found, asked: ``[N, 2, H, W]``, diagonals of the picture.
        over: what the means of magnitude and move are taken over: the whole picture, as published, or the pixels that
            move in either; where few do, the first says little.

    >>> right = torch.zeros(1, 2, 4, 4); right[:, 0] = 0.1
    >>> {k: round(v.item(), 3) for k, v in distances(-right, right).items()}
    {'magnitude': 0.525, 'direction': 1.0, 'move': 0.0}
    """
    size_found, size_asked = found.norm(dim=1), asked.norm(dim=1)
    moves = (size_asked > MOVING).to(found)
    counted = torch.ones_like(moves) if over == "picture" else torch.maximum(moves, (size_found > MOVING).to(found))

    def mean(x: Tensor, where: Tensor) -> Tensor:
        return (x * where).sum((1, 2)) / where.sum((1, 2)).clamp(min=1)

    cosine = (found * asked).sum(1) / (size_found * size_asked).clamp(min=1e-12)
    return {
        "magnitude": mean(((found - asked).norm(dim=1) + TINY) ** POWER, counted),
        "direction": mean((1 - cosine) / 2, moves),
        "move": (LEAST + 0.5 * mean(size_asked, counted) - mean(size_found, counted)).clamp(min=0),
    }


@entry(
    "rewards.rules:optical_flow_alignment",
    tags=("image", "video", "editing"),
    source="Wan et al. 2025 (MotionEdit), arXiv:2512.10284, section 4",
)
class OpticalFlowAlignment(RewardBase):
    """``1 - D`` between 0 and 1, with ``D = 0.7 magnitude + 0.2 direction + 0.1 move`` brought to begin at 0.

    Args:
        flows: of a sample, the flow from its source to its output and the flow asked for, ``[2, H, W]`` each, pixels:
            an estimator's (RAFT's, say) and the true edit's, or a world's own.
        weights: of magnitude, direction and move. levels: the score is rounded to this many steps, ``None`` for not.
        over: see :func:`distances`.

    >>> right = torch.zeros(2, 4, 4); right[0] = 1.0
    >>> reward = OpticalFlowAlignment(lambda s: (s.output, right), levels=None)
    >>> rows = Rollout([Sample("p", right), Sample("p", 0 * right), Sample("p", -right)], torch.ones(3, 1))
    >>> [round(x, 2) for x in reward(rows).outcome.tolist()]
    [1.0, 0.54, 0.34]
    """

    def __init__(
        self,
        flows: Callable[[Sample], tuple[Tensor, Tensor]],
        *,
        weights: tuple[float, float, float] = (0.7, 0.2, 0.1),
        levels: int | None = 5,
        over: Literal["picture", "moving"] = "picture",
        name: str = "optical_flow",
    ) -> None:
        self.flows, self.weights, self.levels, self.over, self.name = flows, weights, levels, over, name

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        pairs = [self.flows(s) for s in rollout.samples]
        found, asked = (torch.stack([p[k] for p in pairs]).float() for k in (0, 1))
        diagonal = (found.shape[-1] ** 2 + found.shape[-2] ** 2) ** 0.5
        parts = distances(found / diagonal, asked / diagonal, over=self.over)
        total = sum(w * parts[k] for w, k in zip(self.weights, ("magnitude", "direction", "move"), strict=True))
        start = self.weights[0] * TINY**POWER
        score = 1 - ((torch.as_tensor(total) - start) / (1 - start)).clamp(0, 1)
        score = score if self.levels is None else (score * self.levels).round() / self.levels
        return Scores(score.to(rollout.mask.device))
