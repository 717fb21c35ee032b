"""Reward models on outputs that are tensors: points, latents, images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rewardkit.policies.modes import evaluating
from rewardkit.protocols import Want
from rewardkit.registry import entry
from rewardkit.rewards.base import RewardBase
from rewardkit.types import Rollout, Sample, Scores


@entry("rewards.learned:tensor", aliases=("regression_oracle",), tags=("reward-model", "differentiable"))
class TensorReward(RewardBase):
    """A network that scores an output given its prompt.

    Args:
        module: ``(outputs [N, ...], condition [N, C]) -> [N]`` or ``[N, 1]``. condition: from a prompt to ``[C]``;
            default: nothing, ``C`` 0. read: from an output to a tensor, for outputs that are none (sequences).

    >>> net = nn.Linear(3, 1)
    >>> class OfBoth(nn.Module):
    ...     def forward(self, x, condition):
    ...         return net(torch.cat([x, condition], -1))
    >>> reward = TensorReward(OfBoth(), condition=lambda prompt: torch.ones(1))
    >>> reward(Rollout([Sample("p", torch.zeros(2))], torch.ones(1, 1))).outcome.shape
    torch.Size([1])
    """

    differentiable = True

    def __init__(
        self,
        module: nn.Module,
        *,
        condition: Callable[[Any], Tensor] = lambda prompt: torch.zeros(0),
        read: Callable[[Any], Tensor] = lambda output: torch.as_tensor(output, dtype=torch.float32),
        name: str = "learned",
    ) -> None:
        self.module, self.condition, self.read, self.name = module, condition, read, name

    def encode(self, samples: Sequence[Sample]) -> Rollout:
        """Samples as rows, to be fitted on."""
        inputs = {
            "outputs": torch.stack([self.read(s.output) for s in samples]),
            "condition": torch.stack([self.condition(s.asked) for s in samples]),
        }
        return Rollout(list(samples), torch.ones(len(samples), 1), inputs=inputs)

    def evaluate(self, rollout: Rollout, want: Sequence[Want] = ("scores",)) -> dict[str, Tensor]:
        """``scores`` ``[B]`` with gradients, of an encoded rollout.

        Raises:
            KeyError: for anything else in ``want``.
        """
        if list(want) != ["scores"]:
            raise KeyError(f"a reward model evaluates 'scores' only, not {list(want)}")
        return {"scores": self.of(rollout.inputs["outputs"], rollout.inputs["condition"])}

    def of(self, outputs: Tensor, condition: Tensor) -> Tensor:
        """Scores ``[N]`` with gradients, through the outputs too."""
        return self.module(outputs, condition).reshape(len(outputs))

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        """Scores of a rollout's samples: dropout off, no gradients."""
        own = self.encode(rollout.samples)
        first = next(self.module.parameters(), None)
        with torch.no_grad(), evaluating(self.module):
            found = self.evaluate(own if first is None else own.to(first.device))["scores"]
        return Scores(found.to(rollout.mask.device))
