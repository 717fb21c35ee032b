"""Actors that imitate episodes: how worlds with environments make their base policies."""

from __future__ import annotations

from collections.abc import Sequence

from rewardkit.objectives.imitation import sft
from rewardkit.policies.control import ControlPolicy
from rewardkit.training.fit import fit
from rewardkit.training.learner import Learner
from rewardkit.types import Sample

BATCH = 256
"""Steps an update."""


def imitate(policy: ControlPolicy, episodes: Sequence[Sample], *, steps: int, seed: int) -> None:
    """Fit ``policy`` in place to the actions of ``episodes``, by ``steps`` updates."""
    data = policy.encode(episodes).steps()
    learner = Learner(policy, lr=2e-3, schedule="cosine", warmup=0.02)
    for _ in fit(learner, data, sft, epochs=steps * BATCH / len(data), batch=BATCH, seed=seed):
        pass
