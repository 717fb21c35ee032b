"""Reward models of noisy states, for guidance while sampling."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rewardkit.policies.diffusion.process import Process
from rewardkit.policies.modes import evaluating
from rewardkit.protocols import Want
from rewardkit.registry import entry
from rewardkit.rewards.base import RewardBase
from rewardkit.types import Rollout, Sample, Scores


@entry(
    "rewards.learned:noisy",
    tags=("reward-model", "differentiable", "diffusion", "flow"),
    source="Liu et al. 2025 (VideoAlign), arXiv:2501.13918, section 4.3",
)
class NoisyReward(RewardBase):
    """A network that scores a state given its time and its prompt; outputs themselves are states at time 0.

    It is fitted on comparisons as any reward model is: ``encode`` noises the outputs, those of one comparison to one
    time but each with its own noise, and every call draws anew. (Under one noise the difference of two states is that
    of the outputs, which no single state shows: the reward would be sure of itself where nothing can be seen.)

    Args:
        module: ``(x [N, ...], time [N], condition [N, C]) -> [N]`` or ``[N, 1]``. process: of the policy to be guided.
        condition: from a prompt to ``[C]``. seed: of the draws.

    >>> from rewardkit.policies.diffusion import Flow
    >>> class Net(nn.Module):
    ...     def forward(self, x, time, condition):
    ...         return x.sum(-1) + condition[:, 0]
    >>> reward = NoisyReward(Net(), Flow(), condition=lambda prompt: torch.ones(1))
    >>> reward(Rollout([Sample("p", torch.ones(2))], torch.ones(1, 1))).outcome.tolist()
    [3.0]
    """

    differentiable = True

    def __init__(
        self,
        module: nn.Module,
        process: Process,
        *,
        condition: Callable[[Any], Tensor],
        name: str = "noisy",
        seed: int = 0,
    ) -> None:
        self.module, self.process, self.condition, self.name = module, process, condition, name
        self.chance = torch.Generator().manual_seed(seed)

    def encode(self, samples: Sequence[Sample], group: Tensor | None = None) -> Rollout:
        """Samples noised, to be fitted on; rows of one ``group`` share their time, by default all."""
        given = self._rows(samples)
        _, index = torch.unique(torch.zeros(len(samples)) if group is None else group, return_inverse=True)
        time = self.process.draw_times(int(index.max()) + 1, self.chance)[index]
        noise = torch.randn(given["x"].shape, generator=self.chance)
        given["x"], _ = self.process.noised(given["x"], noise, time)
        return Rollout(list(samples), torch.ones(len(samples), 1), inputs={**given, "time": time})

    def evaluate(self, rollout: Rollout, want: Sequence[Want] = ("scores",)) -> dict[str, Tensor]:
        """``scores`` ``[B]`` with gradients, of an encoded rollout.

        Raises:
            KeyError: for anything else in ``want``.
        """
        if list(want) != ["scores"]:
            raise KeyError(f"a reward model evaluates 'scores' only, not {list(want)}")
        return {"scores": self.value(*(rollout.inputs[k] for k in ("x", "time", "condition")))}

    def value(self, x: Tensor, time: Tensor, condition: Any) -> Tensor:
        """Scores ``[N]`` of states, with gradients through them."""
        return self.module(x, time, condition).reshape(len(x))

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        """Scores of a rollout's samples as they are: dropout off, no gradients."""
        given = self._rows(rollout.samples)
        with torch.no_grad(), evaluating(self.module):
            found = self.value(given["x"], torch.zeros(len(rollout)), given["condition"])
        return Scores(found.to(rollout.mask.device))

    def _rows(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        return {
            "x": torch.stack([torch.as_tensor(s.output, dtype=torch.float32) for s in samples]),
            "condition": torch.stack([self.condition(s.asked) for s in samples]),
        }
