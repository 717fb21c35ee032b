"""Reward models with several heads: one score a dimension, weighed by whoever uses them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from rewardkit.policies.modes import evaluating
from rewardkit.registry import entry
from rewardkit.rewards.learned.tensor import TensorReward
from rewardkit.types import Rollout, Sample, Scores


@entry(
    "rewards.learned:multi_head",
    aliases=("multi_head_video", "multi_head_image"),
    tags=("reward-model", "differentiable", "multi-objective"),
    source="one linear head a dimension on a shared trunk, as in Liu et al. 2025 (VideoAlign), arXiv:2501.13918",
)
class HeadsReward(TensorReward):
    """A network with a score for each named dimension of an output; the reward is their weighted sum, parts kept.

    Fitted as any reward model: rows encoded with ``aspects`` are scored by the head that their judgement was about, so
    that comparisons of all dimensions go into one loss.

    Args:
        module: ``(outputs [N, ...], condition [N, C]) -> [N, heads]``. condition: from a prompt to ``[C]``.
        weights: of each dimension, in the order of the heads; may be changed when the reward is used.

    >>> class Net(nn.Module):
    ...     def forward(self, x, condition):
    ...         return x
    >>> reward = HeadsReward(Net(), {"quality": 1.0, "motion": 0.5}, condition=lambda prompt: torch.ones(1))
    >>> scores = reward(Rollout([Sample("p", torch.tensor([2.0, 4.0]))], torch.ones(1, 1)))
    >>> scores.outcome.tolist(), scores.parts["motion"].outcome.tolist()
    ([4.0], [4.0])
    """

    def __init__(
        self,
        module: nn.Module,
        weights: Mapping[str, float],
        *,
        condition: Callable[[Any], Tensor],
        name: str = "multi_head",
    ) -> None:
        if not weights:
            raise ValueError("HeadsReward needs a weight for each of its heads, at least one")
        super().__init__(module, condition=condition, name=name)
        self.weights = dict(weights)

    def encode(self, samples: Sequence[Sample], aspects: Sequence[str] | None = None) -> Rollout:
        """Samples as rows; with ``aspects``, one a row, each is scored by that head alone.

        Raises:
            ValueError: for an aspect that no head is named after.
        """
        rollout = super().encode(samples)
        if aspects is None:
            return rollout
        names = list(self.weights)
        unknown = sorted(set(aspects) - set(names))
        if unknown:
            raise ValueError(f"aspects {unknown} have no head; the heads are {names}")
        return replace(rollout, inputs=rollout.inputs | {"head": torch.tensor([names.index(a) for a in aspects])})

    def evaluate(self, rollout: Rollout, want: Sequence[Any] = ("scores",)) -> dict[str, Tensor]:
        """``scores`` ``[B]`` with gradients: of the row's aspect, or the weighted sum."""
        if list(want) != ["scores"]:
            raise KeyError(f"a reward model evaluates 'scores' only, not {list(want)}")
        if "head" not in rollout.inputs:
            return super().evaluate(rollout, want)
        found = self.heads(rollout.inputs["outputs"], rollout.inputs["condition"])
        return {"scores": found.gather(1, rollout.inputs["head"][:, None])[:, 0]}

    def heads(self, outputs: Tensor, condition: Tensor) -> Tensor:
        """Scores of every dimension, ``[N, heads]``, with gradients.

        Raises:
            ValueError: if the network has another number of heads than there are weights.
        """
        found = self.module(outputs, condition)
        if found.shape != (len(outputs), len(self.weights)):
            raise ValueError(f"the network gives {tuple(found.shape)} for {len(self.weights)} heads")
        return found

    def of(self, outputs: Tensor, condition: Tensor) -> Tensor:
        """The weighted sum, ``[N]``, with gradients."""
        found = self.heads(outputs, condition)
        return found @ found.new_tensor(list(self.weights.values()))

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        """The weighted sum with every dimension as a part."""
        given, device = self.encode(rollout.samples), next((p.device for p in self.module.parameters()), None)
        given = given if device is None else given.to(device)
        with torch.no_grad(), evaluating(self.module):
            found = self.heads(given.inputs["outputs"], given.inputs["condition"]).to(rollout.mask.device)
        return Scores.combine({k: Scores(found[:, i]) for i, k in enumerate(self.weights)}, self.weights)
