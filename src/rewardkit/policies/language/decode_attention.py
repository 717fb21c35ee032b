"""Attention of one new token a row: over its prompt, whose keys are read once for all its rows, and its own past."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Seats(NamedTuple):
    """Rows as members of their prompts, for prompts with different numbers of rows.

    Args:
        rows: of each seat, prompt by prompt and as many a prompt, its row, any where it is empty: ``[G * m]``.
        seats: of each row, its seat: ``[R]``.
    """

    rows: Tensor
    seats: Tensor

    @classmethod
    def of(cls, places: list[int], prompts: int, device: torch.device) -> Seats | None:
        """The seats of rows in the order of their prompts; ``None`` where every prompt has as many rows.

        Args:
            places: of each row, the number of its prompt. prompts: how many there are.

        >>> Seats.of([0, 1, 1], 2, torch.device("cpu"))
        Seats(rows=tensor([0, 0, 1, 2]), seats=tensor([0, 2, 3]))
        """
        counts = [places.count(p) for p in range(prompts)]
        most = max(counts)
        if min(counts) == most:
            return None
        seats = [p * most + k for p, count in enumerate(counts) for k in range(count)]
        rows = [0] * (prompts * most)
        for row, seat in enumerate(seats):
            rows[seat] = row
        return cls(torch.tensor(rows, device=device), torch.tensor(seats, device=device))


def _seated(x: Tensor, rows: int, prompts: int, seats: Seats | None) -> Tensor:
    """Rows ``[R * H_kv, r, d]`` as members of their prompts: ``[G * H_kv, m * r, d]``."""
    if rows == prompts and seats is None:
        return x
    x = x.view(rows, -1, *x.shape[1:])
    x = x if seats is None else x.index_select(0, seats.rows)
    return x.view(prompts, -1, *x.shape[1:]).transpose(1, 2).flatten(2, 3).flatten(0, 1)


def _risen(x: Tensor, rows: int, prompts: int, each: int, seats: Seats | None) -> Tensor:
    """Members of prompts ``[G * H_kv, m * r, d]`` as rows, ``[R * H_kv, r, d]``; ``each``: ``r``."""
    if rows == prompts and seats is None:
        return x
    x = x.unflatten(1, (-1, each)).unflatten(0, (prompts, -1)).transpose(1, 2).flatten(0, 1)
    return (x if seats is None else x.index_select(0, seats.seats)).flatten(0, 1)


def _masked(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Scores ``[n * H_kv, q, k]`` with a mask ``[n, 1, k]`` added."""
    if mask is None:
        return scores
    heads = len(scores) // len(mask)
    return (scores.view(len(mask), heads * scores.shape[1], scores.shape[2]) + mask).view(scores.shape)


def attend_rows(
    query: Tensor,
    prompts: tuple[Tensor, Tensor],
    own: tuple[Tensor, Tensor],
    seats: Seats | None,
    masks: tuple[Tensor | None, Tensor | None],
    *,
    scale: float | None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """One softmax over a prompt's keys and the row's own.

    Args:
        query: ``[R, H, 1, D]``, rows in the order of their prompts. prompts: keys and values ``[G, H_kv, P, D]``.
        own: ``[R, H_kv, T, D]``. ``H_kv`` divides ``H``; no key is copied for the heads that share it.
        masks: added to the scores: of the prompts ``[G, 1, P]``, of the rows' own ``[R, 1, T]``.
        softcap, sinks: see :func:`rewardkit.policies.language.attention.attend`.

    Returns:
        ``[R, 1, H, D]``.
    """
    count, heads, width = prompts[0].shape[:3]
    rows, _, length, size = own[0].shape
    keys, values, own_keys, own_values = (x.flatten(0, 1) for x in (*prompts, *own))
    query = (query * (size**-0.5 if scale is None else scale)).reshape(rows * heads, -1, size)
    far = torch.bmm(_seated(query, rows, count, seats), keys.transpose(1, 2))
    near = torch.bmm(query, own_keys.transpose(1, 2))
    if softcap is not None:
        far, near = (softcap * torch.tanh(x / softcap) for x in (far, near))
    far, near = (_masked(x, mask) for x, mask in zip((far, near), masks, strict=True))
    parts = [far, _seated(near, rows, count, seats)]
    if sinks is not None:
        members = far.shape[1] // query.shape[1]
        column = sinks.to(far.dtype).view(1, heads, 1, -1).expand(count, heads, members, -1)
        parts.append(column.reshape(*far.shape[:2], 1))
    scores = torch.cat(parts, -1)
    weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(query.dtype)
    far = _risen(torch.bmm(weights[..., :width], values), rows, count, query.shape[1], seats)
    mine = _risen(weights[..., width : width + length], rows, count, query.shape[1], seats)
    return (far + torch.bmm(mine, own_values)).view(rows, 1, -1, values.shape[-1])
