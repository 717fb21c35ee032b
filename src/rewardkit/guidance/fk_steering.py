"""Feynman-Kac steering: a policy whose outputs are those of particle systems."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch

from rewardkit.guidance.base import Guided
from rewardkit.guidance.particles import Proposal, Steering, particles
from rewardkit.protocols import Reward, Stepwise
from rewardkit.registry import entry
from rewardkit.types import Rollout


@entry(
    "guidance:fk_steering",
    aliases=("smc_steering",),
    tags=("particles", "stepwise", "no-gradients"),
    source="Singhal et al. 2025, arXiv:2501.06848; Lew et al. 2023 (SMC steering), arXiv:2306.03081",
)
def fk_steering(
    policy: Stepwise,
    reward: Reward,
    *,
    particles: int,
    give: Literal["best", "draw"] = "best",
    proposal: Proposal | None = None,
    **steering: Any,
) -> Steered:
    """The policy whose outputs are those of Feynman-Kac particle systems, one system an output.

    Args:
        policy: any stepwise policy. reward: any reward that can score partial outputs. particles: of a system.
        give: the output of the largest reward, as in the paper; or one drawn by weight, which follows
            ``p(x) exp(lam r(x)) / Z`` as particles grow in number.
        proposal: see :func:`rewardkit.guidance.particles.particles`.
        steering: ``lam``, ``potential``, ``every``, ...: see :class:`rewardkit.guidance.particles.Steering`.

    >>> from rewardkit.policies.table import TablePolicy
    >>> from rewardkit.rewards.function import function_reward
    >>> count = function_reward(lambda completions, **_: [float(c.count("a")) for c in completions], name="count")
    >>> steered = fk_steering(TablePolicy(["x"], ["a", "b"], horizon=4), count, particles=32, lam=2.0)
    >>> rollout = steered.sample(["x"], seed=0)
    >>> rollout.samples[0].output, rollout.cost.calls
    (('a', 'a', 'a', 'a'), 256)
    """
    return Steered(policy, reward, particles, Steering(**steering), give, proposal)


class Steered(Guided):
    """See :func:`fk_steering`."""

    name = "particle-steered"

    def __init__(
        self,
        policy: Stepwise,
        reward: Reward,
        k: int,
        steering: Steering,
        give: Literal["best", "draw"],
        proposal: Proposal | None,
    ) -> None:
        if k < 1 or give not in ("best", "draw"):
            raise ValueError(f"fk_steering needs at least one particle and give='best' or 'draw', not {k} and {give!r}")
        self.policy, self.reward, self.k = policy, reward, k
        self.steering, self.give, self.proposal = steering, give, proposal

    def sample(self, start: Sequence[Any], n: int = 1, *, sampling: Any = None, seed: int | None = None) -> Rollout:
        """``n`` outputs a start, each of a system of its own; tensors ``score`` ``[B]`` (reward) and ``ess`` ``[B]``
        (the smallest effective size that the system had)."""
        starts = [s for s in start for _ in range(n)]
        seed = int(torch.randint(2**62, ())) if seed is None else seed
        found = particles(
            self.policy, self.reward, starts, self.k, self.steering,
            proposal=self.proposal, sampling=sampling, seed=seed,
        )  # fmt: skip
        if self.give == "best":
            chosen = found.values.nan_to_num(-math.inf).argmax(1)
        else:
            # Not the stream that drew the particles: their own noise would choose among them.
            chance = torch.Generator().manual_seed(seed ^ 0xD7A3)
            chosen = torch.multinomial(found.log_weights.exp(), 1, generator=chance)[:, 0]
        rows = torch.arange(len(starts)) * self.k + chosen
        values = found.values.flatten()[rows].float()
        how = {"particles": self.k, "lam": self.steering.lam, "potential": self.steering.potential, "give": self.give}
        kept = [found.samples[i] for i in rows.tolist()]
        return self.given(kept, n, how=how, cost=found.cost, score=values, ess=found.ess.amin(1).float())
