"""Gold: whether a picture shows what its prompt asks for, read off the pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rewardkit.rewards.base import RewardBase
from rewardkit.types import Rollout, Sample, Scores
from rewardkit.worlds.shapes.detect import read
from rewardkit.worlds.shapes.edits import Edit, Hole
from rewardkit.worlds.shapes.scene import Scene


class Gold(RewardBase):
    """Colour, shape, count, size and place, in [0, 1]; for edits and holes, half of it that and half that the rest of
    the picture stayed as it was."""

    name = "gold"

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        return Scores(self.of(rollout.samples).to(rollout.mask.device))

    def of(self, samples: Sequence[Sample]) -> Tensor:
        """``[N]``.

        Raises:
            ValueError: for a prompt that is none of this world.
        """
        pictures = torch.stack([torch.as_tensor(s.output) for s in samples])
        found = []
        for s, picture, reading in zip(samples, pictures, read(pictures), strict=True):
            asked = s.asked
            if isinstance(asked, (Edit, Hole)):
                found.append(0.5 * reading.score(asked.target) + 0.5 * _kept(asked, picture))
            else:
                found.append(reading.score(asked if isinstance(asked, Scene) else Scene.parse(str(asked))))
        return torch.tensor(found)


def _kept(asked: Edit | Hole, picture: Tensor) -> float:
    """1 where what should stay is as it was, falling to 0 at a mean difference of 0.1.

    An edit leaves the ground around its shapes, a hole leaves what is outside it.
    """
    source = asked.target.picture()
    if isinstance(asked, Hole):
        stays = asked.mask()
    else:
        both = torch.maximum(asked.source.picture().amax(0), source.amax(0))
        stays = (both < 0.15).float()
    apart = ((picture.cpu() - source).abs().mean(0) * stays).sum() / stays.sum()
    return max(0.0, 1 - 10 * float(apart))
