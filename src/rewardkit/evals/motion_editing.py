"""How well edits move what they should: the figures of a benchmark of motion, given an estimator of optical flow."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rewardkit.measures.intervals import mean_interval
from rewardkit.registry import entry
from rewardkit.rewards.rules.optical_flow import MOVING, OpticalFlowAlignment
from rewardkit.types import Measure, Rollout, Sample


@entry(
    "evals:motion_editing",
    aliases=("motionedit_bench",),
    tags=("image", "editing"),
    source="Wan et al. 2025 (MotionEdit-Bench), arXiv:2512.10284, section 5",
)
def motion_editing(samples: Sequence[Sample], flows: Callable[[Sample], tuple[Tensor, Tensor]]) -> dict[str, Measure]:
    """Alignment, direction, error and stillness of the motion in edits.

    Args:
        samples: edits. flows: of a sample, the flow from its source to its output and the true edit's, ``[2, H, W]``
            each, pixels.

    Returns:
        ``alignment``: the score of :class:`rewardkit.rewards.rules.optical_flow.OpticalFlowAlignment`, not rounded;
        ``direction``: the cosine, over pixels that should move; ``error``: the distance of end points there, pixels;
        ``still``: the share of edits whose mean motion there is below half a pixel. The last three leave out edits
        that ask for no motion.

    >>> right = torch.zeros(2, 4, 4); right[0] = 2.0
    >>> found = motion_editing([Sample("p", right), Sample("p", 0 * right)], lambda s: (s.output, right))
    >>> [found[k].value for k in ("direction", "error", "still")]
    [0.5, 1.0, 0.5]
    """
    reward = OpticalFlowAlignment(flows, levels=None)
    scores = reward(Rollout(list(samples), torch.ones(len(samples), 1))).outcome
    values: dict[str, list[float]] = {"alignment": [] if scores is None else scores.tolist()}
    for sample in samples:
        found, asked = flows(sample)
        diagonal = (asked.shape[-1] ** 2 + asked.shape[-2] ** 2) ** 0.5
        moves = asked.norm(dim=0) > MOVING * diagonal
        a, b = found[:, moves], asked[:, moves]
        size = a.norm(dim=0)
        cosine = (a * b).sum(0) / (size * b.norm(dim=0)).clamp(min=1e-9)
        one = {
            "direction": cosine,
            "error": (a - b).norm(dim=0),
            "still": torch.where(moves.any(), size.mean() < 0.5, torch.nan),
        }
        for name, x in one.items():
            values.setdefault(name, []).append(float(x.mean()))
    return {k: _measure(v) for k, v in values.items()}


def _measure(values: Sequence[float]) -> Measure:
    known = [x for x in values if x == x]
    ci = mean_interval(known) if len(known) > 1 else None
    return Measure(sum(known) / max(1, len(known)), n=len(known), ci=ci, invalid=len(values) - len(known))
