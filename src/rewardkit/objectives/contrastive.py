"""Two embeddings of each row that belong together, against those of all other rows."""

from __future__ import annotations

import torch
from torch import Tensor

from rewardkit.objectives.base import Loss, objective
from rewardkit.objectives.parts import precise
from rewardkit.registry import entry


@entry(
    "objectives.reward:contrastive",
    aliases=("info_nce",),
    tags=("image-text", "batch"),
    source="Radford et al. 2021 (CLIP), arXiv:2103.00020, figure 3; van den Oord et al. 2018, arXiv:1807.03748",
)
@objective(per="sample", scope="batch")
def contrastive(embeddings: Tensor, caption: Tensor, mask: Tensor) -> Loss:
    """Cross-entropy of finding a row's second embedding by its first, and its first by its second, averaged.

    Rows of the same caption are no negatives of each other, else the loss would push apart what is described alike.

    Args:
        embeddings: ``[B, 2, D]``, live; the two are compared by their product, so the temperature is part of one.
        caption: integer ``[B]``, equal for rows that say the same. mask: ``[B, T]``; rows of 0 are no negatives.

    Returns:
        ``[B]``, nats; metric ``accuracy``, how often the second embedding is found.

    >>> apart = torch.eye(2)[:, None].expand(2, 2, 2) * 3
    >>> round(contrastive(apart, torch.tensor([0, 1]), torch.ones(2, 1)).value[0].item(), 4)
    0.0001
    """
    first_BD, second_BD = precise(embeddings).unbind(1)
    live_B = (mask > 0).any(-1)
    own_BB = torch.eye(len(mask), dtype=torch.bool, device=mask.device)
    skip_BB = (~live_B[None, :] | (caption[:, None] == caption[None, :])) & ~own_BB
    logits_BB = torch.where(live_B[:, None], first_BD, 0.0) @ torch.where(live_B[:, None], second_BD, 0.0).T
    there = logits_BB.masked_fill(skip_BB, float("-inf")).log_softmax(1)
    back = logits_BB.T.masked_fill(skip_BB, float("-inf")).log_softmax(1)
    found_B = (there.detach().argmax(1) == torch.arange(len(mask), device=mask.device)).to(there.dtype)
    return Loss(-0.5 * (there.diagonal() + back.diagonal()), {"accuracy": found_B})
