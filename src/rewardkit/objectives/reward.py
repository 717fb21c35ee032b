"""Losses that turn judgements into a scalar reward."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rewardkit.objectives.base import Loss, objective, pairs_of
from rewardkit.objectives.parts import Number, logistic, pair_metrics, precise, same_shape, spread
from rewardkit.registry import entry


@entry(
    "objectives.reward:bradley_terry",
    aliases=("margin_bt", "adaptive_margin_bt", "label_smoothed_bt", "scaled_bt"),
    tags=("pairwise", "reward-model"),
    source="Bradley & Terry 1952; Ouyang et al. 2022, arXiv 2203.02155, eq. 1; margin: Touvron et al. 2023, eq. 2; "
    "centring: Eisenstein et al. 2023, arXiv 2312.09244",
)
@objective(per="pair")
def bradley_terry(
    scores: Tensor,
    pairs: Tensor,
    *,
    margin: Number = 0.0,
    smoothing: Number = 0.0,
    center: float = 0.0,
    weight: Number = 1.0,
) -> Loss:
    """The chosen row scores higher, with probability ``sigmoid(s_chosen - s_rejected - margin)``.

    ``loss = -(1 - smoothing) log sigmoid(z) - smoothing log sigmoid(-z) + center * (s_chosen + s_rejected)**2``

    Args:
        scores: ``[B]``. pairs: long ``[P, 2]``, (better, worse).
        margin: by how much the better one must lead, in score units.
        smoothing: probability that a label is wrong; for a soft label ``p``, ``1 - p``; 0.5 is a tie.
        center: pulls the scores of a pair towards sum 0, as comparisons leave their level free.
        weight: multiplies the comparison (not the centring). All but ``center`` are numbers or ``[P]``.

    Returns:
        ``[P]``; metrics ``chosen``, ``rejected``, ``margin`` (score difference), ``accuracy`` (ties count half).

    >>> bradley_terry(torch.tensor([-1000.0, 0.0]), torch.tensor([[0, 1]])).value.item()
    1000.0
    """
    if scores.ndim != 1:
        raise ValueError(f"bradley_terry: scores must be [B], not {tuple(scores.shape)}")
    scores = precise(scores)
    chosen_P, rejected_P = scores[pairs[:, 0]], scores[pairs[:, 1]]
    z_P = chosen_P - rejected_P - spread(margin, chosen_P, "margin")
    value = spread(weight, z_P, "weight") * logistic(z_P, spread(smoothing, z_P, "smoothing"))
    return Loss(value + center * (chosen_P + rejected_P).square(), pair_metrics(chosen_P, rejected_P))


def _taking_part(scores: Tensor, rank: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Scores in float32 at least and ranks; rows that train nothing have score 0 and no rank."""
    scores = precise(scores)
    if mask is None:
        return scores, rank
    dead_B = ~(mask > 0).any(-1)
    return scores.masked_fill(dead_B, 0.0), rank.masked_fill(dead_B, -1)


@entry(
    "objectives.reward:bradley_terry_ties",
    aliases=("rao_kupper",),
    tags=("pairwise", "ties", "reward-model"),
    source="Rao & Kupper 1967, Ties in paired-comparison experiments; as used by Liu et al. 2025, arXiv 2501.13918",
)
@objective(per="group", ties=True)
def bradley_terry_ties(
    scores: Tensor, group: Tensor, rank: Tensor, mask: Tensor | None = None, *, theta: Number = 5.0
) -> Loss:
    """Comparisons in which 'equal' is an answer: rows of equal rank are a tie, and a tie is evidence of equal scores.

    With ``d`` the score difference of two rows::

        P(first better) = sigmoid(d - log theta)
        P(tie)          = (theta**2 - 1) * sigmoid(d - log theta) * sigmoid(-d - log theta)

    Args:
        scores: ``[B]``. group: long ``[B]``. rank: ``[B]``, 0 the best; negative rows take no part. mask: ``[B, T]``;
            nor do rows that it trains nothing of.
        theta: above 1; two equal rows tie with probability ``(theta - 1) / (theta + 1)``. A tensor can be trained.

    Returns:
        ``[G]``: the mean over the pairs of a group; metric ``accuracy``: the likeliest of win, tie and loss was right.

    Raises:
        ValueError: if theta is not above 1.

    >>> loss = bradley_terry_ties(torch.zeros(2), torch.tensor([0, 0]), torch.tensor([0, 0]), theta=3.0)
    >>> round(loss.value.exp().item(), 4)
    2.0
    """
    same_shape("bradley_terry_ties", scores=scores, group=group, rank=rank)
    scores, rank = _taking_part(scores, rank, mask)
    eta = torch.as_tensor(theta, dtype=scores.dtype, device=scores.device).log()
    if not bool((eta > 0).all()):
        raise ValueError(f"bradley_terry_ties: theta must be above 1, not {theta}")
    pairs = pairs_of(group, rank, ties=True)
    better, worse = pairs[:, 0], pairs[:, 1]
    d_P = scores[better] - scores[worse]
    win_P, loss_P = F.logsigmoid(d_P - eta), F.logsigmoid(-d_P - eta)
    tie_P = torch.log(torch.expm1(2 * eta)) + win_P + loss_P
    tied_P = rank[better] == rank[worse]
    right_P = torch.stack([win_P, tie_P, loss_P]).argmax(0) == tied_P.long()
    numbers, index_B = torch.unique(group, return_inverse=True)
    count_G = torch.zeros(len(numbers), dtype=scores.dtype, device=scores.device)
    count_G = count_G.index_add(0, index_B[better], torch.ones_like(d_P)).clamp(min=1)

    def by_group(x_P: Tensor) -> Tensor:
        return torch.zeros_like(count_G).index_add(0, index_B[better], x_P.to(count_G.dtype)) / count_G

    return Loss(by_group(-torch.where(tied_P, tie_P, win_P)), {"accuracy": by_group(right_P)})


@entry(
    "objectives.reward:plackett_luce",
    aliases=("k_wise",),
    tags=("listwise", "ties", "reward-model"),
    source="Plackett 1975; Luce 1959; k-wise feedback: Zhu et al. 2023, arXiv 2301.11270; ties: Breslow 1974",
)
@objective(per="group")
def plackett_luce(scores: Tensor, group: Tensor, rank: Tensor, mask: Tensor | None = None) -> Loss:
    """A ranking of k rows: the best is drawn by softmax of the scores, then the best of the rest, and so on.

    ``loss = -sum_i [s_i - logsumexp(s_j for rank_j >= rank_i)]`` over the rows of a group that
    are not in its last place.

    Ties: rows that share a place are each drawn from all that are not above them (Breslow's rule); rows that share the
    last place are the unordered rest, so a ranking of the best m of k is complete. Two rows are Bradley-Terry.

    Args:
        scores: ``[B]``. group: long ``[B]``. rank: ``[B]``, 0 the best; negative rows take no part. mask: ``[B, T]``;
            nor do rows that it trains nothing of.

    Returns:
        ``[G]``, groups in ascending order of their numbers; metric ``accuracy``: a row of the first place scores
        highest.

    >>> loss = plackett_luce(torch.zeros(3), torch.zeros(3, dtype=torch.long), torch.tensor([0, 1, 2]))
    >>> round(loss.value.exp().item(), 4)
    6.0
    """
    same_shape("plackett_luce", scores=scores, group=group, rank=rank)
    scores, rank = _taking_part(scores, rank, mask)
    numbers, index_B = torch.unique(group, return_inverse=True)
    ranked_B = rank >= 0
    lowest = torch.full((len(numbers),), -1, dtype=torch.long, device=scores.device)
    last_G = lowest.scatter_reduce(0, index_B, rank.long(), "amax")
    placed_B = ranked_B & (rank < last_G[index_B])
    beside_BB = (group[:, None] == group[None, :]) & ranked_B[None, :] & (rank[None, :] >= rank[:, None])
    beside_BB = beside_BB | torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    rest_B = scores[None, :].expand(len(scores), -1).masked_fill(~beside_BB, float("-inf")).logsumexp(-1)
    value_B = torch.where(placed_B, rest_B - scores, torch.zeros_like(scores))
    value_G = torch.zeros(len(numbers), dtype=scores.dtype, device=scores.device).index_add(0, index_B, value_B)
    low_G = torch.full((len(numbers),), float("-inf"), dtype=scores.dtype, device=scores.device)
    known_B = scores.detach().masked_fill(~ranked_B, float("-inf"))
    top_G = low_G.scatter_reduce(0, index_B, known_B, "amax")
    first_G = low_G.scatter_reduce(0, index_B, known_B.masked_fill(rank != 0, float("-inf")), "amax")
    return Loss(value_G, {"accuracy": ((first_G == top_G) & (last_G >= 0)).to(scores.dtype)})
