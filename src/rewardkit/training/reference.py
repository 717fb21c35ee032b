"""Log-probs of a reference, attached to a rollout once and keyed by the weights' version."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from rewardkit.policies.modes import evaluating
from rewardkit.registry import entry
from rewardkit.training.modes import Precision, forward
from rewardkit.types import Rollout


@entry("training:attach_reference", aliases=("loops:attach_reference",), tags=("needs-reference", "offline"))
@torch.no_grad()
def attach_reference(
    rollout: Rollout,
    policy: Any,
    name: str = "ref_logps",
    *,
    micro_batch: int | None = None,
    precision: Precision = "no",
) -> Rollout:
    """The rollout with ``policy``'s log-probs under ``name``, without gradients and without dropout.

    A rollout that has them already, from weights of the same version in the same precision, is returned as it is.

    Args:
        rollout: sampled or encoded by this policy or one with the same tokens. policy: a frozen view such as
            ``policy.at("start")``; a live policy gives its present weights.
        name: ``ref_logps``, or ``old_logps`` where the sampler kept none. micro_batch: rows a forward.
        precision: of the forward pass. It must be that of the learner that reads them, or policy and reference differ
            by rounding at equal weights; :meth:`rewardkit.training.learner.Learner.attach` sees to that.

    >>> from rewardkit.policies.table import TablePolicy
    >>> from rewardkit.types import Sample
    >>> policy = TablePolicy(["x"], ["a", "b"])
    >>> rollout = attach_reference(policy.encode([Sample("x", "a")]), policy.at("start"))
    >>> round(rollout["ref_logps"].item(), 4)
    -0.6931
    """
    version = str(policy.version) if precision == "no" else f"{policy.version} in {precision}"
    if name in rollout.tensors and rollout.versions.get(name) == version:
        return rollout
    rows = torch.arange(len(rollout)).split(micro_batch or max(1, len(rollout)))
    parts = [rollout] if len(rows) == 1 else [_alone(rollout).select(r) for r in rows]
    with evaluating(policy.module):
        found = torch.cat([forward(policy, p, ("logps",), precision)["logps"] for p in parts])
    # A value that is not finite outside the mask is nobody's log-prob.
    found = torch.where((rollout.mask == 0) & ~torch.isfinite(found), torch.zeros_like(found), found)
    return replace(rollout, tensors={**rollout.tensors, name: found}, versions={**rollout.versions, name: version})


def _alone(rollout: Rollout) -> Rollout:
    """The rows without their ties: log-probs of a fork do not need its parent."""
    return replace(rollout, parent=None, start=None)
