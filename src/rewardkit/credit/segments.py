"""Credit of actions that are several tokens: one reward, one value and one discount an action."""

from __future__ import annotations

from torch import Tensor

from rewardkit.credit.returns import gae
from rewardkit.measures.segments import Segments
from rewardkit.registry import entry


@entry(
    "credit:macro_action_gae",
    aliases=("segment_gae",),
    tags=("needs-critic", "dense", "segments"),
    source="Lu et al. 2025 (VLA-RL), arXiv:2505.18719; Schulman et al. 2015, arXiv:1506.02438, eq. 16",
)
def macro_action_gae(
    rewards: Tensor,
    values: Tensor,
    turn: Tensor,
    mask: Tensor,
    bootstrap: Tensor | None = None,
    *,
    gamma: float = 0.99,
    lam: float = 0.95,
) -> dict[str, Tensor]:
    """:func:`gae` over segments: what a segment earned is paid to it as one, and time passes once a segment.

    A segment's reward is the sum over its tokens, its value that before its first token, where none of the action is
    decided. Its advantage and return stand on all its tokens. With one token a segment it is :func:`gae`.

    Args:
        rewards: ``[B, T]``. values: ``[B, T]``, the value before each token. turn: long ``[B, T]``, the segment at each
            position, ascending, -1 where there is none. mask: ``[B, T]``; a segment without a trained token is passed
            over.
        bootstrap: ``[B]``, see :func:`gae`. gamma, lam: a segment.

    Returns:
        ``advantages`` and ``returns`` ``[B, T]``, 0 outside the segments.

    >>> import torch
    >>> found = macro_action_gae(torch.tensor([[0.0, 0.0, 0.0, 1.0]]), torch.tensor([[0.5, 9.0, 0.25, 9.0]]),
    ...     torch.tensor([[0, 0, 1, 1]]), torch.ones(1, 4), gamma=0.5, lam=1.0)
    >>> found["advantages"].tolist()
    [[0.0, 0.0, 0.75, 0.75]]
    """
    parts = Segments(turn, mask)
    found = gae(parts.sums(rewards), parts.firsts(values), parts.has.to(mask.dtype), bootstrap, gamma=gamma, lam=lam)
    return {name: parts.spread(x) for name, x in found.items()}
