"""The squared error of a difference of log-ratios: one loss under many names."""

from __future__ import annotations

from torch import Tensor

from rewardkit.measures.masked import masked_mean, masked_sum
from rewardkit.objectives.base import Loss, objective
from rewardkit.objectives.parts import Number, log_ratio, pair_metrics, same_shape, spread
from rewardkit.registry import entry


@entry(
    "objectives.preference:difference_regression",
    aliases=("inpo", "optimistic_nash_po", "irepo_regression", "objectives.diffusion:reward_difference_prediction"),
    tags=("pairwise", "needs-reference"),
    source="Zhang et al. 2025 (ONPO), arXiv:2502.16852; Zhang et al. 2024 (INPO), arXiv:2407.00617; "
    "Azar et al. 2023 (IPO), arXiv:2310.12036, eq. 17",
)
@objective(per="pair")
def difference_regression(
    logps: Tensor,
    ref_logps: Tensor,
    mask: Tensor,
    pairs: Tensor,
    *,
    target: Number,
    weight: Number = 1.0,
    average: bool = False,
) -> Loss:
    """``(h_better - h_worse - target)**2`` with ``h = sum_t mask * (logps - ref_logps)``.

    What it is depends on the target and on whose log-probs the reference is:

    * a rate times the difference of two rewards: a step of mirror descent from the reference, without its normaliser;
    * half a rate, for pairs drawn by a policy and labelled by preference: the minimiser is ``reference * exp(rate *
      P(y beats the policy))``, though no win rate is estimated. With the last policy for reference this is INPO's step
      (unregularised), with the base iterate, twice a round, ONPO's;
    * ``1 / (2 beta)``: IPO. :func:`rewardkit.objectives.preference.ipo` is that with a mean over tokens by default.

    Args:
        logps: ``[B, T]``, live. ref_logps: ``[B, T]``, never trained. mask: ``[B, T]`` weights.
        pairs: long ``[P, 2]``, (better, worse).
        target: by how many nats the better one must gain on the worse. weight: multiplies the loss. Numbers or ``[P]``:
            ``partial(difference_regression, target=Column("score", of="difference"))``.
        average: mean instead of sum over the positions of a row.

    Returns:
        ``[P]``; metrics ``chosen``, ``rejected``, ``margin`` (log-ratios, nats) and ``accuracy``.

    >>> import torch
    >>> logps, ref = torch.tensor([[-1.0], [-3.0]]), torch.tensor([[-2.0], [-2.0]])
    >>> difference_regression(logps, ref, torch.ones(2, 1), torch.tensor([[0, 1]]), target=1.5).value.item()
    0.25
    """
    same_shape("difference_regression", mask=mask, logps=logps, ref_logps=ref_logps)
    ratio_BT = log_ratio(logps, ref_logps, mask)
    h_B = masked_mean(ratio_BT, mask) if average else masked_sum(ratio_BT, mask)
    better_P, worse_P = h_B[pairs[:, 0]], h_B[pairs[:, 1]]
    value_P = (better_P - worse_P - spread(target, better_P, "target")).square()
    return Loss(spread(weight, value_P, "weight") * value_P, pair_metrics(better_P, worse_P))
