"""How often at least one of ``k`` tries is right, estimated without bias from more tries than ``k``."""

from __future__ import annotations

import torch
from torch import Tensor

from rewardkit.registry import entry


@entry("measures:pass_at_k", aliases=("evals:pass_at_k",), source="Chen et al. 2021, arXiv:2107.03374, eq. 1")
def pass_at_k(right: Tensor, k: int) -> Tensor:
    """``1 - C(n - c, k) / C(n, k)`` for each prompt, with ``c`` of ``n`` tries right.

    Args:
        right: bool or 0/1, ``[P, n]``. k: at most ``n``.

    Returns:
        float64 ``[P]``.

    Raises:
        ValueError: if ``k`` is not between 1 and ``n``.

    >>> pass_at_k(torch.tensor([[1, 0, 0, 0], [0, 0, 0, 0]]), 2).tolist()
    [0.5, 0.0]
    """
    n = right.shape[1]
    if not 1 <= k <= n:
        raise ValueError(f"pass_at_k: k must be between 1 and the {n} tries of a prompt, not {k}")
    wrong_P = n - right.to(torch.float64).sum(1)
    # prod_(i < k) (wrong - i) / (n - i): 0 as soon as fewer than k tries are wrong.
    steps = torch.arange(k, dtype=torch.float64, device=right.device)
    return 1 - ((wrong_P[:, None] - steps).clamp(min=0) / (n - steps)).prod(1)
