"""Log-probs of a reference, attached to a rollout once and keyed by the weights' version; kept on disk on request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rewardkit.policies.modes import evaluating
from rewardkit.protocols import Want
from rewardkit.registry import entry
from rewardkit.training.modes import Precision, forward
from rewardkit.training.reference_store import ReferenceStore
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
    store: ReferenceStore | None = None,
) -> Rollout:
    """The rollout with ``policy``'s log-probs under ``name``, without gradients and without dropout.

    A rollout that has them already, from weights of the same version in the same precision, is returned as it is; those
    that it has under another name are taken over.

    Args:
        rollout: sampled or encoded by this policy or one with the same tokens. policy: a frozen view such as
            ``policy.at("start")``; a live policy gives its present weights.
        name: ``ref_logps``, or ``old_logps`` where the sampler kept none. micro_batch: rows a forward.
        precision: of the forward pass. It must be that of the learner that reads them, or policy and reference differ
            by rounding at equal weights; :meth:`rewardkit.training.learner.Learner.attach` sees to that.
        store: rows that it knows are read from it, the others go through the model and into it. A row that is read
            differs from one that is computed here by rounding alone: it may have stood among other rows.

    Raises:
        ValueError: with a store, for rows that are not token ids, or weights that have no fingerprint.

    >>> from rewardkit.policies.table import TablePolicy
    >>> from rewardkit.types import Sample
    >>> policy = TablePolicy(["x"], ["a", "b"])
    >>> rollout = attach_reference(policy.encode([Sample("x", "a")]), policy.at("start"))
    >>> round(rollout["ref_logps"].item(), 4)
    -0.6931
    """
    version = str(policy.version) if precision == "no" else f"{policy.version} in {precision}"
    same = [n for n, made_by in rollout.versions.items() if made_by == version and n in rollout.tensors]
    if name in same:
        return rollout
    if same:
        return _with(rollout, name, rollout[same[0]], version)

    def compute(some: Rollout) -> Tensor:
        rows = torch.arange(len(some)).split(micro_batch or max(1, len(some)))
        parts = [some] if len(rows) == 1 else [_alone(some).select(r) for r in rows]
        with evaluating(policy.module):
            return torch.cat([forward(policy, p, ("logps",), precision)["logps"] for p in parts])

    found = compute(rollout) if store is None else store.logps(_alone(rollout), policy, precision, compute)
    # A value that is not finite outside the mask is nobody's log-prob.
    found = torch.where((rollout.mask == 0) & ~torch.isfinite(found), torch.zeros_like(found), found)
    return _with(rollout, name, found, version)


def _with(rollout: Rollout, name: str, logps: Tensor, version: str) -> Rollout:
    return replace(rollout, tensors={**rollout.tensors, name: logps}, versions={**rollout.versions, name: version})


def _alone(rollout: Rollout) -> Rollout:
    """The rows without their ties: log-probs of a fork do not need its parent."""
    return replace(rollout, parent=None, start=None)


class Remembered:
    """A frozen policy whose log-probs are read from a store where it has them; otherwise the policy itself.

    Args:
        policy: such as ``policy.at("start")``. store: where its log-probs are kept.
    """

    def __init__(self, policy: Any, store: ReferenceStore) -> None:
        self.policy, self.store = policy, store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.policy, name)

    def evaluate(self, rollout: Rollout, want: Sequence[Want] = ("logps",)) -> dict[str, Tensor]:
        """As the policy's own, without gradients."""
        if tuple(want) != ("logps",):
            return self.policy.evaluate(rollout, want=want)
        return {"logps": attach_reference(rollout, self.policy, "logps", store=self.store)["logps"]}
