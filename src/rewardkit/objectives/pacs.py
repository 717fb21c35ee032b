"""PACS: reinforcement from verifiable rewards as supervised classification of the group's own outputs."""

from __future__ import annotations

import torch
from torch import Tensor

from rewardkit.measures.masked import masked_sum
from rewardkit.objectives.base import Loss, objective
from rewardkit.objectives.parts import Number, log_ratio, logistic, same_shape
from rewardkit.registry import entry


@entry(
    "objectives.policy:pacs",
    tags=("group", "on-policy", "verifiable"),
    source="PACS: arXiv:2509.02522, eq. 5 to 8",
)
@objective(per="sample", scope="group")
def pacs(
    logps: Tensor,
    old_logps: Tensor,
    outcome: Tensor,
    group: Tensor,
    mask: Tensor,
    *,
    beta: Number = 1.0,
    balanced: bool = True,
) -> Loss:
    """Cross-entropy between whether an output is right and how much likelier it became than the others of its group.

    With the row's log-ratio ``r_i = beta * sum_t (logps - old_logps)``::

        psi_i  = r_i - mean_(j != i) r_j
        loss_i = -w_i (l_i log sigmoid(psi_i) + (1 - l_i) log(1 - sigmoid(psi_i)))

    Gradients flow through every term of ``psi``, so the rows of a group must be in one call. At ``logps = old_logps``
    and without class weights, the gradient of the sum over rows is minus ``beta`` times that of REINFORCE with
    ``rloo``. Rows that train nothing take no part; one that is alone in its group has ``psi = 0`` and no gradient.

    Args:
        logps: ``[B, T]``, live. old_logps: ``[B, T]``, of the policy that sampled. mask: ``[B, T]``.
        outcome: ``[B]``; above one half is right. A credit rule leaves it on the rollout: ``credit=total``.
        group: long ``[B]``. beta: logits a nat. balanced: weigh each class of a group by ``n / (2 n_class)``
            where both occur (scikit-learn's ``balanced``), else by 1.

    Returns:
        ``[B]``. Metrics: ``psi`` (logits), and ``accuracy``, whether its sign is the label's (0 counts half).

    >>> two = torch.tensor([[-1.0], [-1.0]])
    >>> loss = pacs(two, two, torch.tensor([1.0, 0.0]), torch.tensor([0, 0]), torch.ones(2, 1))
    >>> [round(x, 4) for x in loss.value.tolist()]
    [0.6931, 0.6931]
    """
    same_shape("pacs", mask=mask, logps=logps, old_logps=old_logps)
    live_B = (mask > 0).any(-1)
    gap_BT = log_ratio(logps, old_logps, mask)
    score_B = beta * masked_sum(gap_BT, (mask > 0).to(gap_BT.dtype))
    _, index = torch.unique(group, return_inverse=True)
    label_B = (outcome > 0.5) & live_B

    def in_group(x_B: Tensor) -> Tensor:
        """The sum over the trained rows of each row's group."""
        x_B = torch.where(live_B, x_B, torch.zeros_like(x_B))
        return x_B.new_zeros(int(index.max()) + 1 if len(index) else 0).index_add(0, index, x_B)[index]

    count_B = in_group(torch.ones_like(score_B))
    others_B = (in_group(score_B) - score_B) / (count_B - 1).clamp(min=1)
    psi_B = torch.where(live_B & (count_B > 1), score_B - others_B, torch.zeros_like(score_B))
    loss_B = logistic(torch.where(label_B, psi_B, -psi_B), 0.0)
    if balanced:
        right_B = in_group(label_B.to(score_B.dtype))
        own_B = torch.where(label_B, right_B, count_B - right_B)
        both_B = (right_B > 0) & (right_B < count_B)
        loss_B = loss_B * torch.where(both_B, count_B / (2 * own_B).clamp(min=1), torch.ones_like(count_B))
    sign_B = psi_B.detach().sign() * (2 * label_B.to(psi_B.dtype) - 1)
    return Loss(loss_B, {"psi": psi_B.detach(), "accuracy": (sign_B + 1) / 2})
