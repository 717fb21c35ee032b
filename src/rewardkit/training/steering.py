"""Self-steering optimisation as a sum of terms."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from rewardkit.objectives.base import Loss
from rewardkit.objectives.preference import dpo
from rewardkit.objectives.steering import PLAIN, steering
from rewardkit.registry import entry
from rewardkit.training.term import Term
from rewardkit.types import Rollout


@entry(
    "objectives.preference:sso",
    aliases=("loops:sso",),
    tags=("pairwise", "on-policy", "terms"),
    source="Xiang et al. 2024, arXiv:2410.17131",
)
def sso(rows: Rollout, *, base: Callable[..., Loss] = dpo, steer: float = 0.1, alpha: float = 0.5) -> list[Term]:
    """The comparison under the bare question, and :func:`rewardkit.objectives.steering.steering` under its principles.

    For ``fit`` and ``rounds``: ``rounds(learner, collect, terms=sso, reference="start", ...)``, where ``collect`` calls
    :func:`rewardkit.feedback.contrast.principle_contrast_pairs`.

    Args:
        rows: in each group a better and a worse row for each ``context``, with ``rank`` and what ``base`` reads.
        base: any loss on pairs. steer: the coefficient of the steering term. alpha: see ``steering``.

    Raises:
        KeyError: for rows without ``context`` or ``rank``.

    >>> import torch
    >>> from rewardkit.policies.table import TablePolicy
    >>> from rewardkit.types import Sample
    >>> policy = TablePolicy(["x", "good x", "bad x"], ["a", "b"])
    >>> rows = policy.encode([Sample(p, o) for p in policy.prompts for o in ("ba" if p == "bad x" else "ab")])
    >>> rows.group = torch.zeros(6, dtype=torch.long)
    >>> given = {"rank": torch.tensor([0, 1] * 3), "context": torch.arange(3).repeat_interleave(2)}
    >>> [(t.name, t.coef, len(t.data)) for t in sso(rows.with_tensors(ref_logps=torch.zeros(6, 1), **given))]
    [('dpo', 1.0, 2), ('steering', 0.1, 6)]
    """
    plain = rows.select(rows["context"] == PLAIN)
    return [Term(plain, base), Term(rows, partial(steering, base=base, alpha=alpha), coef=steer)]
