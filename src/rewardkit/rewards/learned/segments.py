"""Linear rewards of states and actions, learned from comparisons of segments by their return or by their regret."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from rewardkit.protocols import Want
from rewardkit.registry import entry
from rewardkit.rewards.learned.encoded import Encoded
from rewardkit.types import Rollout, Sample


@entry(
    "rewards.learned:segment",
    aliases=("objectives.reward:regret_preference",),
    tags=("reward-model", "control", "exact"),
    source="Knox et al. 2022, Models of human preference for learning reward functions, arXiv:2206.02231",
)
class SegmentReward(Encoded):
    """``r(s, a) = features(s, a) . w`` behind one of two models of what people prefer; the loss is ``bradley_terry``.

    ``return``: the segment's sum of rewards. ``regret``: minus what its actions cost against the best ones::

        -sum_t [V(s_t) - Q(s_t, a_t)]

    ``V`` and ``Q`` are those of the best policy under the present ``w``, and must move with it: they are a softmax
    over a bank of policies of their successor features times ``w`` (generalised policy improvement). The value of the
    segment's last state is in ``Q`` of its last action.

    Args:
        features: ``[S, A, F]``. by: ``return`` or ``regret``.
        policies: probabilities ``[P, S, A]`` of the bank. successor: their successor features ``[P, S, A, F]``. For
            ``regret`` alone.
        weight: where ``w`` begins, ``[F]``; default 0. temperature: of the softmax over the bank, in units of value.

    Outputs are :class:`rewardkit.policies.control.pieces.Trajectory`, states and actions as numbers.

    >>> import numpy as np
    >>> from rewardkit.policies.control.pieces import Trajectory
    >>> reward = SegmentReward(torch.tensor([[[1.0], [2.0]]]), by="return", weight=torch.tensor([3.0]))
    >>> reward(reward.encode([Sample("", Trajectory(np.zeros(3, int), np.array([0, 1]), np.zeros(2)))])).outcome.item()
    9.0
    """

    differentiable = True

    def __init__(
        self,
        features: Tensor,
        *,
        by: Literal["return", "regret"],
        policies: Tensor | None = None,
        successor: Tensor | None = None,
        weight: Tensor | None = None,
        temperature: float = 0.1,
        name: str = "segment",
    ) -> None:
        if by not in ("return", "regret"):
            raise ValueError(f"SegmentReward: by must be 'return' or 'regret', not {by!r}")
        if by == "regret" and (policies is None or successor is None):
            raise ValueError("SegmentReward by regret needs a bank: policies [P, S, A] and successor [P, S, A, F]")
        self.features, self.by, self.name, self.temperature = features, by, name, temperature
        self.policies, self.successor = policies, successor
        self.module = nn.Module()
        first = features.new_zeros(features.shape[-1]) if weight is None else weight.detach().clone()
        self.module.register_parameter("weight", nn.Parameter(first))

    @property
    def weight(self) -> Tensor:
        """``w``, ``[F]``."""
        return self.module.weight  # type: ignore[return-value]

    @property
    def table(self) -> Tensor:
        """The reward of every state and action, ``[S, A]``, with gradients."""
        return self.features @ self.weight

    def advantages(self) -> Tensor:
        """``Q - V`` of the bank's best policies under the present weights, ``[S, A]``, with gradients."""
        assert self.policies is not None
        assert self.successor is not None
        each_PSA = self.successor @ self.weight
        value_PS = (self.policies * each_PSA).sum(-1)
        return self._best(each_PSA) - self._best(value_PS)[:, None]

    def _best(self, x: Tensor) -> Tensor:
        return ((x / self.temperature).softmax(0) * x).sum(0)

    def encode(self, samples: Sequence[Sample]) -> Rollout:
        """Segments as rows, padded on the right, to be fitted on."""
        states, actions, mask = steps_of(samples)
        return Rollout(list(samples), mask.to(self.features.dtype), inputs={"states": states, "actions": actions})

    def evaluate(self, rollout: Rollout, want: Sequence[Want] = ("scores",)) -> dict[str, Tensor]:
        """``scores`` ``[B]`` with gradients, of encoded segments.

        Raises:
            KeyError: for anything else in ``want``.
        """
        if list(want) != ["scores"]:
            raise KeyError(f"a reward model evaluates 'scores' only, not {list(want)}")
        steps_SA = self.table if self.by == "return" else self.advantages()
        found_BT = steps_SA[rollout.inputs["states"], rollout.inputs["actions"]]
        return {"scores": (found_BT * rollout.mask).sum(-1)}


def steps_of(samples: Sequence[Sample]) -> tuple[Tensor, Tensor, Tensor]:
    """States and actions, long ``[B, T]``, of trajectories of numbers, padded on the right, with their mask."""
    states, actions = (
        pad_sequence([torch.as_tensor(part(s.output)) for s in samples], batch_first=True).long()
        for part in (lambda x: x.observations[:-1], lambda x: x.actions)
    )
    lengths = torch.tensor([len(s.output) for s in samples])
    return states, actions, (torch.arange(states.shape[1]) < lengths[:, None]).float()
