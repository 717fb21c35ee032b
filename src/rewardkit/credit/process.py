"""Credit of process rewards without a critic, and the filter that goes with it."""

from __future__ import annotations

import torch
from torch import Tensor

from rewardkit.credit.base import Part
from rewardkit.credit.group import rloo
from rewardkit.credit.returns import reward_to_go
from rewardkit.credit.turns import accompanied
from rewardkit.measures.masked import masked_mean
from rewardkit.registry import entry


@entry(
    "credit:dense_rloo",
    tags=("critic-free", "group", "dense"),
    source="PRIME: Cui et al. 2025, arXiv:2502.01456, eq. 6, the process term",
)
def dense_rloo(rewards: Tensor, ok: Tensor, group: Tensor, mask: Tensor, *, gamma: float = 1.0) -> dict[str, Tensor]:
    """``A[i, t] = sum_(s >= t) gamma^(s - t) (r[i, s] - mean_(j != i) rbar_j)``; ``rbar``: a row's mean reward.

    Args:
        rewards, mask: ``[B, T]``. ok: bool ``[B]``. group: long ``[B]``. gamma: discount a position.

    Returns:
        ``advantages`` ``[B, T]``, 0 outside the mask and in a group with one scored row; ``weight`` ``[B, T]``, 0 for
        rows that were not scored.

    >>> rows = torch.tensor([0, 0])
    >>> dense_rloo(torch.tensor([[1.0, 2.0], [1.0, 0.0]]), rows == 0, rows, torch.ones(2, 2))["advantages"].tolist()
    [[2.0, 1.5], [-2.0, -1.5]]
    """
    live = (mask > 0).to(rewards.dtype)
    mean_B = masked_mean(rewards, live)
    scored_B = ok & (mask > 0).any(1)
    above_BT = rloo(mean_B, scored_B, group, torch.ones_like(mask))["advantages"]
    others_B1 = (mean_B[:, None] - above_BT)[:, :1]
    found = reward_to_go(torch.where(mask > 0, rewards - others_B1, torch.zeros_like(rewards)), mask, gamma=gamma)
    used_BT = (scored_B & accompanied(scored_B, group))[:, None] & (mask > 0)
    advantages = found["advantages"]
    return {
        "advantages": torch.where(used_BT, advantages, torch.zeros_like(advantages)),
        "weight": ok[:, None].expand(mask.shape).to(advantages.dtype),
    }


@entry(
    "credit:pass_rate_filter",
    aliases=("feedback:online_prompt_filter",),
    tags=("filter", "group"),
    source="PRIME: Cui et al. 2025, arXiv:2502.01456, section 3.2",
)
def pass_rate_filter(
    parts: tuple[Part, ...],
    ok: Tensor,
    group: Tensor,
    mask: Tensor,
    *,
    part: str,
    low: float = 0.2,
    high: float = 0.8,
) -> dict[str, Tensor]:
    """Train on the groups alone whose mean outcome lies in ``[low, high]``; put it first in a chain.

    Args:
        parts: of the score. part: the name of the one whose outcome decides (``reward`` where the score has no parts).

    Raises:
        ValueError: if no part with an outcome has that name.

    >>> names = {"outcome": torch.tensor([1.0, 0.0, 1.0, 1.0]), "ok": torch.ones(4, dtype=torch.bool)}
    >>> rows = torch.tensor([0, 0, 1, 1])
    >>> pass_rate_filter((Part("gold", 1.0, names),), rows >= 0, rows, torch.ones(4, 1), part="gold")["ok"].tolist()
    [True, True, False, False]
    """
    named = {p.name: p.names for p in parts if "outcome" in p.names}
    if part not in named:
        raise ValueError(f"pass_rate_filter(part={part!r}): the parts with an outcome are {sorted(named)}")
    scored = ok & named[part]["ok"]
    outcome = named[part]["outcome"].double()
    _, index = torch.unique(group, return_inverse=True)
    zeros = torch.zeros(int(index.max()) + 1 if len(index) else 0, dtype=torch.float64, device=mask.device)
    passed = zeros.index_add(0, index, torch.where(scored, outcome, torch.zeros_like(outcome)))
    rate = (passed / zeros.index_add(0, index, scored.double()).clamp(min=1))[index]
    kept = scored & (rate >= low) & (rate <= high)
    return {"ok": kept, "mask": torch.where(kept[:, None], mask, torch.zeros_like(mask))}
