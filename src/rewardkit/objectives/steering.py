"""One comparison under three prompts: the policy must stay able to write each side when it is asked to."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from rewardkit.measures.masked import masked_mean
from rewardkit.needs import call
from rewardkit.objectives.base import Loss, objective, pairs_of
from rewardkit.objectives.parts import precise
from rewardkit.objectives.preference import dpo
from rewardkit.registry import entry

PLAIN, GOOD, BAD = 0, 1, 2
"""The prompt of a row, in the tensor ``context``: the question, with the good principle, with the bad one."""


@entry(
    "objectives.preference:steering",
    tags=("pairwise", "on-policy"),
    source="Xiang et al. 2024 (SSO), arXiv:2410.17131, functions W and G, and github.com/icip-cas/SSO",
)
@objective(per="group")
def steering(
    logps: Tensor,
    mask: Tensor,
    group: Tensor,
    rank: Tensor,
    context: Tensor,
    ref_logps: Tensor | None = None,
    *,
    base: Callable[..., Loss] = dpo,
    alpha: float = 0.5,
) -> Loss:
    """``W * (base(y+ > y- | good, x) + base(y- > y+ | bad, x))`` for each question ``x``.

    The weight is ``W = sigmoid(-(alpha * l(y+ | x) + (1 - alpha) * l(y- | x)))`` with ``l`` the mean log-prob of a
    token: large where the pair is unlikely without its principles. As in the authors' code its gradient is not
    stopped, so that both replies are also drawn towards what the policy writes unasked.

    Args:
        logps, ref_logps: ``[B, T]``, live and never trained. mask: ``[B, T]``.
        group: ``[B]``, one a question: a better and a worse row in each context. rank: ``[B]``, 0 the better: under the
            bad principle that is ``y-``. context: ``[B]``, 0 plain, 1 good, 2 bad.
        base: any loss on pairs. alpha: the share of ``y+`` in the weight.

    Returns:
        ``[G]``; metrics ``weight`` and ``steer``, the unweighted loss of both contexts.

    >>> logps = torch.full((6, 1), -1.0)
    >>> rank, context = torch.tensor([0, 1] * 3), torch.arange(3).repeat_interleave(2)
    >>> loss = steering(logps, torch.ones(6, 1), torch.zeros(6, dtype=torch.long), rank, context, logps)
    >>> [round(x.item(), 4) for x in (loss.value[0], loss.metrics["weight"][0], loss.metrics["steer"][0])]
    [1.0135, 0.7311, 1.3863]
    """
    numbers, index_B = torch.unique(group, return_inverse=True)
    level_B = masked_mean(precise(logps), mask)
    share_B = torch.where(rank == 0, alpha, 1 - alpha).to(level_B.dtype) * (context == PLAIN)
    zero_G = level_B.new_zeros(len(numbers))
    weight_G = torch.sigmoid(-zero_G.index_add(0, index_B, share_B * level_B))
    alive_B = (mask > 0).any(-1)
    pairs = pairs_of(3 * index_B + context.long(), torch.where(alive_B, rank, torch.full_like(rank, -1)))
    pairs = pairs[context[pairs[:, 0]] != PLAIN]
    names = {"logps": logps, "mask": mask, "pairs": pairs} | ({} if ref_logps is None else {"ref_logps": ref_logps})
    each_P = call(base, names).value
    steer_G = zero_G.index_add(0, index_B[pairs[:, 0]], each_P.to(zero_G.dtype))
    return Loss(weight_G * steer_G, {"weight": weight_G.detach(), "steer": steer_G.detach()})
