"""A policy whose outputs of one prompt part late: they share the first steps of the sampler, and their noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from rewardkit.policies.diffusion.policy import DiffusionPolicy
from rewardkit.policies.diffusion.sampling import Denoise
from rewardkit.protocols import Want
from rewardkit.registry import entry
from rewardkit.types import Rollout, Sample


@entry(
    "policies.diffusion:forked",
    aliases=("loops:backward_progressive_interval",),
    tags=("diffusion", "flow", "forks"),
    source="Hu et al. 2025 (B2-DiffuRL), arXiv:2503.11240, section 4",
)
class Forked:
    """The ``n`` outputs of a prompt are one path up to step ``after`` and ``n`` independent ones from there.

    Only what follows the fork is trained. ``after`` may be changed between turns of a loop, whose body it belongs to:
    to lower it is a progressive backward interval, the easy last steps first.

    Args:
        policy: what samples; its weights are those that are trained. after: steps that are shared; 0 for none.

    >>> from rewardkit.policies.diffusion import Flow, PointNet
    >>> policy = Forked(DiffusionPolicy(PointNet(2, width=8, depth=1), Flow(), (2,)), after=2)
    >>> rollout = policy.sample([None], 2, sampling=Denoise(4), seed=0)
    >>> rollout.mask.tolist(), rollout.parent.tolist()
    ([[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0]], [-1, 0])
    """

    def __init__(self, policy: DiffusionPolicy, *, after: int) -> None:
        if after < 0:
            raise ValueError(f"shared steps are not to be fewer than 0: {after}")
        self.policy, self.after = policy, after

    @property
    def module(self) -> nn.Module:
        return self.policy.module

    @property
    def version(self) -> str:
        return self.policy.version

    def sample(
        self, start: Sequence[Any], n: int = 1, *, sampling: Denoise | None = None, seed: int | None = None
    ) -> Rollout:
        """As :meth:`DiffusionPolicy.sample`; with a seed, the paths before and after the fork are functions of it.

        Raises:
            ValueError: for a fork after the last step.
        """
        how = sampling or Denoise()
        if not self.after:
            return self.policy.sample(start, n, sampling=how, seed=seed)
        if self.after >= how.steps:
            raise ValueError(f"outputs cannot part after {self.after} steps of {how.steps}: nothing would follow")
        trunk = self.policy.sample(start, 1, sampling=replace(how, stop=self.after), seed=seed)
        # A stream of its own. Torch reads the lower 32 bits of a seed: adding a large number would give the same one.
        later = None if seed is None else int(torch.randint(2**32, (), generator=torch.Generator().manual_seed(seed)))
        branches = self.policy.sample(trunk.samples, n, sampling=how, seed=later)
        return replace(branches, cost=branches.cost + trunk.cost)

    def encode(self, samples: Sequence[Sample]) -> Rollout:
        """The policy's own encoding."""
        return self.policy.encode(samples)

    def evaluate(self, rollout: Rollout, want: Sequence[Want] = ("logps",)) -> dict[str, Tensor]:
        """The policy's own."""
        return self.policy.evaluate(rollout, want)

    def at(self, view: str) -> Any:
        """The policy itself with other weights; ``live`` is this policy, forks and all."""
        return self if view == "live" else self.policy.at(view)

    def keep(self, view: str) -> DiffusionPolicy:
        """Freeze a copy of the present weights."""
        return self.policy.keep(view)
