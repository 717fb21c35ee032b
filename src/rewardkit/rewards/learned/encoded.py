"""What reward models share whose scores of a rollout are those of its samples, encoded anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rewardkit.rewards.base import RewardBase
from rewardkit.types import Rollout, Sample, Scores


class Encoded(RewardBase):
    """A reward model without dropout that has ``encode`` and ``evaluate``; whatever made the samples, it reads them."""

    encode: Callable[[Sequence[Sample]], Rollout]
    evaluate: Callable[..., dict[str, Tensor]]

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        """Scores of a rollout's samples, without gradients."""
        with torch.no_grad():
            return Scores(self.evaluate(self.encode(rollout.samples))["scores"].to(rollout.mask.device))
