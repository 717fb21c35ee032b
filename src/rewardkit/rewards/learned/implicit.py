"""The reward that a preference-trained policy is: ``beta * log(pi / pi_ref)``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from rewardkit.measures.masked import masked, masked_sum
from rewardkit.policies.modes import evaluating
from rewardkit.protocols import Policy
from rewardkit.registry import entry
from rewardkit.rewards.base import RewardBase
from rewardkit.types import Cost, Rollout, Scores


@entry(
    "rewards.learned:implicit_log_ratio",
    tags=("learned", "needs-reference"),
    source="Rafailov et al. 2023, arXiv:2305.18290, equation 5",
)
class ImplicitReward(RewardBase):
    """``beta * sum_t log pi(y_t | ...) / pi_ref(y_t | ...)`` over the tokens of the completion, up to a term in the
    prompt.

    Only differences between outputs of one prompt mean anything. Both policies see a row's samples encoded anew, so
    that outputs of any policy can be scored; they are read without dropout or gradients.

    Args:
        policy: seen live; give ``policy.keep(view)`` to freeze it. reference: usually ``policy.at("start")``.
        beta: as in training. dense: give each token's share along ``token`` in place of one outcome.

    >>> from rewardkit.policies.table import TablePolicy
    >>> from rewardkit.types import Sample
    >>> policy = TablePolicy(["x"], ["a", "b"], logits=torch.tensor([[[0.0, 1.0]]]))
    >>> reward = ImplicitReward(policy, TablePolicy(["x"], ["a", "b"]), beta=0.5)
    >>> scores = reward(policy.encode([Sample("x", "a"), Sample("x", "b")])).outcome
    >>> round(float(scores[1] - scores[0]), 3)
    0.5
    """

    def __init__(
        self, policy: Policy, reference: Policy, *, beta: float = 0.1, dense: bool = False, name: str = "implicit"
    ) -> None:
        if not beta > 0:
            raise ValueError(f"ImplicitReward needs beta above 0, not {beta}")
        self.policy, self.reference, self.beta, self.dense, self.name = policy, reference, beta, dense, name

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        with torch.no_grad(), evaluating(self.policy.module), evaluating(self.reference.module):
            own = self.policy.encode(rollout.samples)
            other = self.reference.encode(rollout.samples)
            logps = self.policy.evaluate(own)["logps"]
            ref_logps = self.reference.evaluate(other)["logps"]
            value = self.beta * (masked_sum(logps, own.mask) - masked_sum(ref_logps, other.mask))
        cost = Cost(calls=2 * len(rollout))
        if not self.dense:
            return Scores(value, cost=cost)
        if own.mask.shape != rollout.mask.shape:
            raise ValueError("ImplicitReward(dense=True) needs a rollout of its own tokenizer")
        return Scores(dense={"token": self.beta * masked(logps - ref_logps, own.mask)}, cost=cost)
