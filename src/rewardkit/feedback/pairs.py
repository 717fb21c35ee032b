"""Comparisons out of scored rollouts."""

from __future__ import annotations

import torch

from rewardkit.registry import entry
from rewardkit.types import Rollout, Scores


@entry(
    "feedback:pair_builder",
    aliases=("best_worst_pairs", "large_margin_pairs", "pairwise_image_labels"),
    tags=("pairs", "on-policy"),
    source="Best and worst of a group: Dong et al. 2024, RLHF Workflow, arXiv:2405.07863, section 3",
)
def best_worst_pairs(rollout: Rollout, scores: Scores, *, min_gap: float = 0.0) -> Rollout:
    """The best and the worst row of each group, as one comparison a group.

    Args:
        rollout: groups of at least two rows. scores: their outcomes; rows that were not scored take no part.
        min_gap: groups whose best and worst differ by no more than this are left out; 0 drops only groups without
            any difference, which would teach nothing.

    Returns:
        two rows a group, best first, with the tensor ``rank`` (0 the best, 1 the worst).

    Raises:
        ValueError: if the scores are purely dense, or no group has a difference.

    >>> from rewardkit.types import Sample
    >>> rollout = Rollout([Sample("q", w) for w in "abc"], torch.ones(3, 1), group=torch.zeros(3, dtype=torch.long))
    >>> pairs = best_worst_pairs(rollout, Scores(torch.tensor([0.5, 2.0, -1.0])))
    >>> [s.output for s in pairs.samples], pairs["rank"].tolist()
    (['b', 'c'], [0, 1])
    """
    if scores.outcome is None:
        raise ValueError("best_worst_pairs compares outcomes; these scores are dense only")
    outcome, ok = scores.outcome.cpu(), scores.ok.cpu()
    rows: list[int] = []
    for group in rollout.group.unique().tolist():
        members = ((rollout.group.cpu() == group) & ok).nonzero()[:, 0]
        if len(members) < 2:
            continue
        best, worst = members[outcome[members].argmax()], members[outcome[members].argmin()]
        if float(outcome[best] - outcome[worst]) > min_gap:
            rows += [int(best), int(worst)]
    if not rows:
        raise ValueError(
            f"no group has two scored rows that differ by more than {min_gap}: there is nothing to compare"
        )
    rank = torch.tensor([0, 1], device=rollout.mask.device).repeat(len(rows) // 2)
    return rollout.select(rows).with_tensors(rank=rank)
