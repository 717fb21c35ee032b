"""A learned reward that is a table: one score for each prompt and action, the smallest reward model there is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rewardkit.protocols import Want
from rewardkit.registry import entry
from rewardkit.rewards.learned.encoded import Encoded
from rewardkit.types import Rollout, Sample


@entry("rewards.learned:table", tags=("reward-model", "exact", "differentiable"))
class TableScores(Encoded):
    """One trained score for each prompt and action, float64, all 0 at first.

    Args:
        prompts, actions: ``X`` and ``V`` of them, hashable. name: of the reward.

    >>> reward = TableScores(["x"], ["a", "b"])
    >>> reward(reward.encode([Sample("x", "b")])).outcome.tolist()
    [0.0]
    """

    differentiable = True

    def __init__(self, prompts: Sequence[Any], actions: Sequence[Any], *, name: str = "learned") -> None:
        self.name = name
        self._prompts, self._actions = ({x: i for i, x in enumerate(xs)} for xs in (prompts, actions))
        self.module = nn.Module()
        table = torch.zeros(len(self._prompts), len(self._actions), dtype=torch.float64)
        self.module.register_parameter("table", nn.Parameter(table))

    @property
    def table(self) -> Tensor:
        """float ``[X, V]``, with gradients."""
        return self.module.table  # type: ignore[return-value]

    def rows(self, samples: Sequence[Sample]) -> Tensor:
        """The number of each sample's prompt, long ``[N]``.

        Raises:
            KeyError: for a prompt that the table has not.
        """
        return torch.tensor([self._at(self._prompts, s.asked, "prompt") for s in samples])

    def encode(self, samples: Sequence[Sample]) -> Rollout:
        """Samples as rows, to be fitted on.

        Raises:
            KeyError: for a prompt or an action that the table has not.
        """
        columns = torch.tensor([self._at(self._actions, s.output, "action") for s in samples])
        inputs = {"prompt": self.rows(samples), "action": columns}
        return Rollout(list(samples), torch.ones(len(samples), 1, dtype=torch.float64), inputs=inputs)

    def evaluate(self, rollout: Rollout, want: Sequence[Want] = ("scores",)) -> dict[str, Tensor]:
        """``scores`` ``[B]`` with gradients, of an encoded rollout.

        Raises:
            KeyError: for anything else in ``want``.
        """
        if list(want) != ["scores"]:
            raise KeyError(f"a reward model evaluates 'scores' only, not {list(want)}")
        return {"scores": self.table[rollout.inputs["prompt"], rollout.inputs["action"]]}

    def expected(self, probabilities: Tensor, samples: Sequence[Sample]) -> Tensor:
        """The mean score ``[N]`` of each sample's prompt under ``probabilities`` ``[N, V]``: what a
        :class:`rewardkit.policies.path.PathValue` asks for."""
        return (probabilities * self.table.detach()[self.rows(samples)]).sum(-1)

    @staticmethod
    def _at(index: Mapping[Any, int], key: Any, what: str) -> int:
        if key not in index:
            raise KeyError(f"this table of scores has no {what} {key!r}; it has {list(index)[:5]}")
        return index[key]
