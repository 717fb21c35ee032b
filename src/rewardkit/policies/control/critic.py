"""State values for control policies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from rewardkit.policies.control.envs import Copies
from rewardkit.policies.control.live import Live
from rewardkit.policies.control.nets import mlp
from rewardkit.protocols import Want
from rewardkit.registry import entry
from rewardkit.types import Rollout


@entry("policies:control_critic", tags=("control", "value"))
class ControlCritic:
    """The value of each observation, and of the state that a row reached when it was cut short.

    Args:
        module: from observations ``[N, D]`` to ``[N, 1]``.

    >>> from rewardkit.policies.control import ControlPolicy, Envs, Steps
    >>> envs = Envs("CartPole-v1", 1)
    >>> rollout = ControlPolicy.scratch(envs).sample([0], env=envs, sampling=Steps(5))
    >>> found = ControlCritic.scratch(envs).evaluate(rollout, ("values", "bootstrap"))
    >>> found["values"].shape == rollout.mask.shape, len(found["bootstrap"]) == len(rollout)
    (True, True)
    """

    bootstraps = True

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    @classmethod
    def scratch(cls, envs: Copies, *, hidden: Sequence[int] = (64, 64), seed: int = 0) -> ControlCritic:
        """A new critic for these environments."""
        return cls(mlp(int(np.prod(envs.observation_space.shape or (1,))), hidden, 1, 1.0, seed))

    def evaluate(self, rollout: Rollout, want: Sequence[Want] = ("values",)) -> dict[str, Tensor]:
        """``values`` ``[B, T]``, 0 outside the mask; ``bootstrap`` ``[B]``, 0 where the environment terminated.

        Raises:
            KeyError: for anything else in ``want``.
        """
        unknown = [w for w in want if w not in VALUES]
        if unknown:
            raise KeyError(f"a critic evaluates {' and '.join(VALUES)}, not {unknown}")
        live = Live(rollout.mask)
        return {str(w): state_value(self.module, rollout, str(w), live) for w in want}


VALUES = ("values", "bootstrap")


def state_value(net: nn.Module, rollout: Rollout, name: str, live: Live) -> Tensor:
    """One of :data:`VALUES` by a network from observations to a number."""
    if name == "bootstrap":
        reached = net(rollout.inputs["reached"])[:, 0, 0]
        cut = torch.tensor([s.ended == "cut" for s in rollout.samples], device=reached.device)
        return torch.where(cut, reached, torch.zeros_like(reached))
    return live.put(net(live.take(rollout.inputs["observations"]))[:, 0])
