"""PRIME's process reward: a policy that learns from the outcomes of the same rollouts that it scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from rewardkit.protocols import Policy
from rewardkit.registry import entry
from rewardkit.rewards.learned.implicit import ImplicitReward
from rewardkit.types import Rollout, Scores

Fit = Callable[[Rollout], Mapping[str, float]]


@entry(
    "rewards.learned:implicit_prm",
    tags=("learned", "process", "live", "needs-reference"),
    source="PRIME: Cui et al. 2025, arXiv:2502.01456, eq. 3 to 5",
)
class ImplicitPRM(ImplicitReward):
    """``beta log pi_phi / pi_ref`` at each token, live: after each turn of a loop ``phi`` is fitted to the outcomes.

    It stands in a sum beside the outcome that it learns from: ``gold + ImplicitPRM(...)``; the loop's ``update``
    reaches it there. It scores with the weights of the turn before; no gradient of the policy's loss reaches it.

    Args:
        policy: ``phi``, usually a copy of where the policy starts. reference: that start, frozen. beta: logits a nat.
        fit: one update on a rollout that carries ``ref_logps`` and ``outcome``, such as ``lambda data:
            learner.step(Term(data, partial(outcome_ce_log_ratio, beta=beta)))``; its metrics are kept in ``seen``.
        label: the name of the part whose outcome is learned.

    >>> from rewardkit.policies.table import TablePolicy
    >>> from rewardkit.types import Sample
    >>> phi = TablePolicy(["x"], ["a", "b"])
    >>> reward = ImplicitPRM(phi, phi.at("start"), fit=lambda data: {"rows": len(data)}, label="gold")
    >>> rollout = phi.encode([Sample("x", "a")])
    >>> scores = Scores.combine({"gold": Scores(torch.ones(1)), "prm": reward(rollout)}, {"gold": 1.0, "prm": 1.0})
    >>> reward.update(rollout, scores, step=1)
    >>> reward.seen
    [{'rows': 1}]
    """

    def __init__(
        self,
        policy: Policy,
        reference: Policy,
        *,
        fit: Fit,
        label: str,
        beta: float = 0.05,
        name: str = "implicit_prm",
    ) -> None:
        super().__init__(policy, reference, beta=beta, dense=True, name=name)
        self.fit, self.label = fit, label
        self.seen: list[Mapping[str, float]] = []

    def update(self, rollout: Rollout, scores: Scores, **progress: Any) -> None:
        """One update of ``phi`` on the rows whose outcome is known.

        Raises:
            ValueError: if the score has no such part with an outcome.
        """
        part = scores.parts.get(self.label)
        if part is None or part.outcome is None:
            raise ValueError(f"ImplicitPRM learns from the part {self.label!r}; the score has {sorted(scores.parts)}")
        known = (part.ok & scores.ok).nonzero()[:, 0]
        if not len(known):
            return
        data = rollout.select(known.to(rollout.mask.device))
        with torch.no_grad():
            ref = self.reference.evaluate(data)["logps"]
        self.seen.append(self.fit(data.with_tensors(ref_logps=ref, outcome=part.outcome[known].to(data.mask.device))))
