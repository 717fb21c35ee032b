"""An episode replayed through dynamics that can be differentiated, for a path gradient through all of its steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rewardkit.policies.control.actions import Gaussian
from rewardkit.types import Rollout


@dataclass(frozen=True)
class Unrolled:
    """Asked of :meth:`ControlPolicy.evaluate`, under the name ``path_value``, for the objective ``path_gradient``.

    Every action is the one that was drawn, now as mean plus deviation times its own noise, and every state the one that
    the dynamics make of it; the gradient flows through both, back to the first step.

    Args:
        advance: the environment's step, ``(observations [B, D], actions [B, A]) -> [B, D]``, with gradients.
        value: of a step, ``(before, actions, after) -> [B]``, with gradients.
    """

    advance: Callable[[Tensor, Tensor], Tensor]
    value: Callable[[Tensor, Tensor, Tensor], Tensor]

    @property
    def __name__(self) -> str:
        return "path_value"

    def of(self, module: Callable[[Tensor], Tensor], actions: Any, rollout: Rollout) -> Tensor:
        """``[B]``: the values of the steps, summed over the mask.

        Raises:
            ValueError: for actions that are no Gaussian's.
        """
        if not isinstance(actions, Gaussian):
            raise ValueError("an episode is replayed with Gaussian actions: discrete ones carry no gradient")
        now, total = rollout.inputs["observations"][:, 0], torch.zeros(len(rollout), device=rollout.mask.device)
        for t, live in enumerate((rollout.mask > 0).unbind(1)):
            mean, log_std = module(now).chunk(2, -1)
            noise = ((rollout.inputs["actions"][:, t] - mean) * (-log_std).exp()).detach()
            action = mean + log_std.exp() * noise
            after = self.advance(now, action)
            total = total + torch.where(live, self.value(now, action, after), torch.zeros_like(total))
            now = after
        return total
