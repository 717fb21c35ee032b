"""What every guided policy shares: it has the weights of the policy that it guides, and no log-probs of its own."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NoReturn, Self

import torch
from torch import Tensor, nn

from rewardkit.protocols import Policy, Want
from rewardkit.types import Cost, Rollout, Sample, Scores


class Guided:
    """A policy made of another one; a subclass sets ``policy`` and ``name`` and implements ``sample``."""

    policy: Any
    name: str

    @property
    def module(self) -> nn.Module:
        """The weights of the policy that is guided."""
        return self.policy.module

    @property
    def version(self) -> str:
        """Changes with the weights of the policy that is guided."""
        return f"{self.name}: {self.policy.version}"

    def encode(self, samples: Sequence[Sample]) -> Rollout:
        """The guided policy's own encoding."""
        return self.policy.encode(samples)

    def evaluate(self, rollout: Rollout, want: Sequence[Want] = ("logps",)) -> NoReturn:
        """Not known.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            f"the log-probs of a {self.name} policy have no closed form; evaluate its .policy, or distil it first"
        )

    def of(self, policy: Policy) -> Self:
        """The same guidance of another policy."""
        twin = copy.copy(self)
        twin.policy = policy
        return twin

    def at(self, view: str) -> Self:
        """Guidance of another view of the policy."""
        return self.of(self.policy.at(view))

    def keep(self, view: str) -> Self:
        """Guidance of a frozen copy of the policy."""
        return self.of(self.policy.keep(view))

    def given(
        self, samples: Sequence[Sample], n: int, *, how: Mapping[str, Any], cost: Cost, **tensors: Tensor
    ) -> Rollout:
        """What ``sample`` returns: ``samples`` encoded, ``n`` a start standing together, with how they came about."""
        rollout = self.policy.encode(samples)
        group = torch.arange(len(samples) // n, device=rollout.mask.device).repeat_interleave(n)
        named = {"guided": {"by": self.name, **how}}
        found = replace(rollout, group=group, family=group, how={**rollout.how, **named}, cost=cost)
        return found.with_tensors(**tensors)


def outcome_of(scores: Scores, who: str) -> Tensor:
    """The outcome ``[B]`` that guidance needs.

    Raises:
        ValueError: for a reward with dense scores only.
    """
    if scores.outcome is None:
        raise ValueError(f"{who} needs a reward with an outcome: sum dense scores into one first")
    return scores.outcome
