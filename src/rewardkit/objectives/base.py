"""What every objective shares: needs by name, unreduced losses, one ``reduce``.

An objective is a pure function. Its positional parameter names are its needs, looked up in the rollout or computed by
the model; its keyword-only parameters are hyper-parameters, numbers or tensors. It returns :class:`Loss`, unreduced::

    @entry("objectives.policy:clipped", ...)
    @objective(per="token")
    def clipped(logps, old_logps, advantages, *, low=0.2, high=0.2) -> Loss: ...

Names that are derived and never stored: ``pairs`` (from ``group`` and ``rank``).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from rewardkit.measures.masked import masked
from rewardkit.needs import name_of

Per = Literal["token", "sample", "pair", "group"]
Scope = Literal["sample", "group", "batch"]
Reduce = Literal["tokens", "sequences", "sequence_sums", "constant"]

_SPEC = "__rewardkit_objective__"


class Loss(NamedTuple):
    """An unreduced loss and its unreduced metrics.

    ``value`` is ``[B, T]``, ``[B]``, ``[P]`` or ``[G]`` as the objective's ``per`` says; every metric has the same
    shape and is averaged with the same weights, so that a sharded batch logs what the whole batch would.
    """

    value: Tensor
    metrics: Mapping[str, Tensor] = MappingProxyType({})


@dataclass(frozen=True)
class Spec:
    """What the learner must know of an objective: the axis of its loss, how many rows must be seen together, and
    whether rows of equal rank are compared."""

    per: Per
    scope: Scope
    ties: bool = False


def objective(
    *, per: Per, scope: Scope | None = None, ties: bool = False
) -> Callable[[Callable[..., Loss]], Callable[..., Loss]]:
    """Declare a pure function as an objective.

    Args:
        per: the axis of the returned loss: one number a token (position), sample (row), pair or group.
        scope: rows that must be in one call: ``sample``, ``group`` or ``batch``. Default: ``group`` for pairs and
            groups, else ``sample``. A learner makes ``batch`` exact by two passes.
        ties: for a loss per group, whether a tie is a comparison: a group of nothing but ties then counts.
    """
    chosen: Scope = scope or ("group" if per in ("pair", "group") else "sample")

    def mark(fn: Callable[..., Loss]) -> Callable[..., Loss]:
        setattr(fn, _SPEC, Spec(per, chosen, ties))
        return fn

    return mark


def spec(fn: Callable[..., Loss]) -> Spec:
    """The declaration of an objective, through any number of ``functools.partial``.

    Raises:
        TypeError: if ``fn`` was not declared with :func:`objective`.
    """
    inner: Any = fn
    while isinstance(inner, functools.partial):
        inner = inner.func
    found = getattr(inner, _SPEC, None)
    if found is None:
        raise TypeError(f"{name_of(fn)!r} is not an objective: declare it with @objective(per=...)")
    return found


def pairs_of(group: Tensor, rank: Tensor, *, ties: bool = False) -> Tensor:
    """Every (better, worse) pair of rows of one group.

    Args:
        group: long ``[B]``. rank: ``[B]``, 0 the best; negative rows take no part.
        ties: also return pairs of equal rank (once, the earlier row first).

    Returns:
        long ``[P, 2]``, in order of the better row.

    >>> pairs_of(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 0])).tolist()
    [[0, 1], [3, 2]]
    """
    together = (group[:, None] == group[None, :]) & (rank[:, None] >= 0) & (rank[None, :] >= 0)
    better = together & (rank[:, None] < rank[None, :])
    if ties:
        equal = together & (rank[:, None] == rank[None, :])
        better = better | torch.triu(equal, diagonal=1)
    return better.nonzero()


def element_weights(
    mask: Tensor,
    per: Per,
    reduce: Reduce = "tokens",
    *,
    pairs: Tensor | None = None,
    group: Tensor | None = None,
    rank: Tensor | None = None,
    ties: bool = False,
) -> Tensor:
    """The weight of each element of an unreduced loss, before the division by :func:`normaliser`.

    Args:
        mask: ``[B, T]``, times any weight that credit gave. per: axis of the loss.
        reduce: for losses per token, how positions are averaged (verl's names in brackets): ``tokens`` [token-mean],
            ``sequences`` [seq-mean-token-mean], ``sequence_sums`` [seq-mean-token-sum], ``constant``
            [seq-mean-token-sum-norm, Dr. GRPO].
        pairs: ``[P, 2]`` where ``per`` is ``pair``. group: ``[B]`` where it is ``group``; rank: ``[B]`` where the rows
            of a group are ranked; ties: whether rows of equal rank are compared too.

    Twice the weight is two copies: of a position under ``tokens``, of a row (times its mean weight) under the others.
    For losses per sample, pair and group the mask only says what takes part; their weights are their own
    hyper-parameter.

    Returns:
        ``[B, T]``, ``[B]``, ``[P]`` or ``[G]`` (groups in ascending order of their numbers). A row counts if it trains
        any position, a pair if both of its rows do, a group if at least two rows do that are compared with each other.
    """
    alive_B = (mask > 0).any(-1).to(mask.dtype)
    if per == "token":
        if reduce == "sequences":
            return mask / (mask > 0).sum(-1, keepdim=True).clamp(min=1)
        return mask
    if per == "sample":
        return alive_B
    if per == "pair":
        if pairs is None:
            raise ValueError("element_weights needs pairs for a loss per pair")
        return alive_B[pairs[:, 0]] * alive_B[pairs[:, 1]]
    if group is None:
        raise ValueError("element_weights needs group for a loss per group")
    numbers, index = torch.unique(group, return_inverse=True)
    live_B = alive_B > 0
    if rank is None:
        rows_G = torch.zeros(len(numbers), dtype=mask.dtype, device=mask.device).index_add(0, index, alive_B)
        return (rows_G >= 2).to(mask.dtype)
    compared = pairs_of(group, torch.where(live_B, rank, torch.full_like(rank, -1)), ties=ties)
    found_G = torch.zeros(len(numbers), dtype=mask.dtype, device=mask.device)
    return found_G.index_fill(0, index[compared[:, 0]], 1.0)


def normaliser(weights: Tensor, per: Per, reduce: Reduce = "tokens", *, length: int | None = None) -> Tensor:
    """What the weighted sum is divided by: additive over micro-batches and ranks, so sum it over them before dividing.

    Only what is trained counts: a fully masked row is in no denominator.

    Args:
        weights: of :func:`element_weights`. length: the constant of ``constant``, usually the longest completion
            allowed.
    """
    if per != "token":
        return weights.sum()
    if reduce in ("tokens", "sequences"):
        return weights.sum()
    rows = (weights.sum(-1) / (weights > 0).sum(-1).clamp(min=1)).sum()
    if reduce == "constant":
        if not length:
            raise ValueError("reduce='constant' needs length, the constant number of tokens to divide by")
        return rows * length
    return rows


def reduce_loss(value: Tensor, weights: Tensor, denominator: Tensor | float) -> Tensor:
    """``sum(weights * value) / max(denominator, tiny)``, the one reduction; 0 (with a graph) where nothing is trained.

    >>> reduce_loss(torch.tensor([1.0, 3.0, float("nan")]), torch.tensor([1.0, 1.0, 0.0]), 2.0).item()
    2.0
    """
    if value.shape != weights.shape:
        raise ValueError(
            f"an unreduced loss of shape {tuple(value.shape)} meets weights of shape {tuple(weights.shape)}"
        )
    # Half precision holds no denominator above 65,504, and its tiny fraction of one is 0.
    kind = torch.promote_types(torch.promote_types(value.dtype, weights.dtype), torch.float32)
    least = torch.finfo(kind).tiny
    below = denominator.to(kind).clamp(min=least) if isinstance(denominator, Tensor) else max(denominator, least)
    # The weights are divided, not the sum: nothing more for the gradient to pass.
    return (masked(value, weights) * (weights.to(kind) / below)).sum()


def mean(
    loss: Loss,
    mask: Tensor,
    fn: Callable[..., Loss],
    reduce: Reduce = "tokens",
    *,
    length: int | None = None,
    pairs: Tensor | None = None,
    group: Tensor | None = None,
    rank: Tensor | None = None,
) -> Tensor:
    """One batch's loss as a number: weights, normaliser and reduction in one call, for tests and hand-written loops."""
    own = spec(fn)
    weights = element_weights(mask, own.per, reduce, pairs=pairs, group=group, rank=rank, ties=own.ties)
    return reduce_loss(loss.value, weights, normaliser(weights, own.per, reduce, length=length))
