"""KL to a reference as a part of the reward: per position, without gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from rewardkit.measures.kl import Estimator, kl_estimate
from rewardkit.registry import entry


@entry(
    "credit:kl_penalty",
    aliases=("rewards.compose:kl_penalty",),
    tags=("needs-reference", "kl"),
    source="Ziegler et al. 2019, arXiv:1909.08593, eq. 2",
)
def kl_penalty(
    rewards: Tensor,
    old_logps: Tensor,
    ref_logps: Tensor,
    mask: Tensor,
    outcome: Tensor | None = None,
    *,
    coef: float | Tensor,
    estimator: Estimator = "k1",
) -> dict[str, Tensor]:
    """``rewards - coef * KL`` at each trained position, and ``outcome - coef * sum_t KL`` for rules that read outcomes.

    With ``k1`` the gradient of the expected reward is that of the reward minus ``coef`` times the exact KL. It reads
    log-probs, so it is credit and not a reward; the KL *loss* is :func:`rewardkit.objectives.policy.kl`.

    Args:
        rewards: ``[B, T]``. old_logps: ``[B, T]``, of the policy that sampled. ref_logps, mask: ``[B, T]``.
        outcome: ``[B]``, where there is one.
        coef: reward a nat, a number or ``[B]``, a coefficient a row.
        estimator: see :func:`rewardkit.measures.kl.kl_estimate`.

    >>> one = torch.ones(1, 1)
    >>> kl_penalty(one, -one, -2 * one, one, coef=0.5)["rewards"].item()
    0.5
    """
    kl_BT = kl_estimate(old_logps, ref_logps, estimator).detach()
    kl_BT = torch.where(mask > 0, kl_BT, torch.zeros_like(kl_BT))
    cost_BT = (coef[:, None] if isinstance(coef, Tensor) and coef.ndim else coef) * kl_BT
    found = {"rewards": rewards - cost_BT}
    if outcome is not None:
        found["outcome"] = outcome - cost_BT.sum(1)
    return found
