"""Labels that nobody gave: where the sub-goals of a successful demonstration were reached."""

from __future__ import annotations

import torch
from torch import Tensor

from rewardkit.registry import entry


@entry(
    "feedback:pseudo_segment_labels",
    tags=("control", "process", "heuristic"),
    source="Lu et al. 2025 (VLA-RL), arXiv:2505.18719, gripper changes and end-effector speed near zero",
)
def pseudo_segment_labels(closed: Tensor, speed: Tensor, *, slow: float = 0.01) -> Tensor:
    """Which steps of a successful demonstration end a segment: those that open or close the gripper, those at which the
    hand comes to rest, and the last one.

    Args:
        closed: bool ``[T]``, whether the gripper is closed after each step; it is open before the first. speed: ``[T]``
            of the hand after each step. slow: below it the hand rests; of several such steps in a row the first counts.

    Returns:
        bool ``[T]``.

    >>> closed = torch.tensor([False, True, True, True, False])
    >>> pseudo_segment_labels(closed, torch.tensor([0.2, 0.1, 0.0, 0.0, 0.1])).tolist()
    [False, True, True, False, True]
    """
    if closed.shape != speed.shape or closed.ndim != 1:
        raise ValueError(f"closed and speed are both [T], not {tuple(closed.shape)} and {tuple(speed.shape)}")
    rests = speed < slow
    before = torch.cat([closed.new_zeros(1), closed[:-1]]), torch.cat([rests.new_zeros(1), rests[:-1]])
    ends = (closed != before[0]) | (rests & ~before[1])
    if len(ends):
        ends[-1] = True
    return ends


def share_finished(ends: Tensor) -> Tensor:
    """Which share of the segments is finished *before* each step: ``[T] -> float [T]``.

    >>> share_finished(torch.tensor([False, True, False, True])).tolist()
    [0.0, 0.0, 0.5, 0.5]
    """
    done = ends.float().cumsum(0) - ends.float()
    return done / ends.sum().clamp(min=1)
