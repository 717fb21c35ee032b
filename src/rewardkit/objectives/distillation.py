"""The policy is drawn towards a distribution composed of other policies' logits, over the whole vocabulary."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rewardkit.measures.kl import exact_kl
from rewardkit.objectives.base import Loss, objective
from rewardkit.objectives.parts import precise
from rewardkit.protocols import Against
from rewardkit.registry import entry

FLOOR = 1e-3
"""Added to the adaptive weight, as in the authors' code: where the two models agree the price of KL stays finite."""


@entry(
    "guidance:logit_extrapolation",
    aliases=("logit_extrapolation",),
    tags=("weight-free",),
    source="Zhang et al. 2025 (AlignDistil), arXiv:2503.02832; with three models: Liu et al. 2021 (DExperts), "
    "arXiv:2105.03023",
)
def extrapolated(logits: Tensor, away: Tensor, w: Tensor | float) -> Tensor:
    """``logits + w * (logits - away)``: beyond one model's logits, away from another's; probabilities are not mixed.

    Args:
        logits, away: ``[..., V]``. w: how far, 0 for ``logits`` themselves; a number, or ``[..., 1]``.

    >>> import torch
    >>> extrapolated(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.0]), 2.0).tolist()
    [3.0, 0.0]
    """
    return logits + w * (logits - away)


def align_kl(tuned: Any, away: Any, *, beta: float, scale: float | None = None, weight: float = 1.0) -> Against:
    """What :func:`aligndistil` reads, for ``Term(data, aligndistil, want=(align_kl(...),))``.

    At each position, with logits ``z`` and ``w`` how far the target goes beyond the tuned model::

        beta / w * KL(policy || softmax(z_tuned + w * (z_tuned - z_away)))

    ``w`` is ``scale * sum_v |p_tuned - p_away| + 0.001`` where ``scale`` is given, else ``weight`` everywhere.

    Args:
        tuned: a policy trained by ``dpo``. away: one trained by ``dpo`` on the swapped pairs, or the reference.
        beta: of their training, reward units a nat. scale: of the adaptive weight (15 on the policy's own samples and
            10 on data in the authors' scripts). weight: the fixed one.
    """

    def align_kl(logits: Tensor, tuned_logits: Tensor, away_logits: Tensor, targets: Tensor) -> Tensor:
        w: Tensor | float = weight
        if scale is not None:
            w = scale * (tuned_logits.softmax(-1) - away_logits.softmax(-1)).abs().sum(-1) + FLOOR
        far = w[:, None] if isinstance(w, Tensor) else w
        return beta / w * exact_kl(logits, extrapolated(tuned_logits, away_logits, far))

    return Against(align_kl, tuned, away)


@entry(
    "objectives.policy:aligndistil",
    tags=("distillation", "needs-reference"),
    source="Zhang et al. 2025, arXiv:2503.02832, and github.com/songmzhang/AlignDistil",
)
@objective(per="token")
def aligndistil(align_kl: Tensor) -> Loss:
    """Token-level RLHF with the reward of two preference-trained models, as distillation over the whole vocabulary.

    RLHF with reward ``beta log(p_tuned / p_ref)`` and KL price ``b`` at a position has the gradient of
    ``b KL(policy || softmax(w z_tuned + (1 - w) z_ref))`` with ``w = beta / b``; here the price is each position's own.
    Reduce it by ``sequences``, as published.

    Args:
        align_kl: ``[B, T]``, live, of :func:`align_kl`: ``Term(data, aligndistil, want=(align_kl(...),))``.

    Returns:
        ``[B, T]``.

    >>> import torch
    >>> aligndistil(torch.tensor([[0.25]])).value.item()
    0.25
    """
    return Loss(precise(align_kl))
