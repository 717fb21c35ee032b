"""Attention of one new token a row over its prompt, whose keys are read once for all its rows, and over its own past."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Seats(NamedTuple):
    """Rows as members of their prompts, for prompts with different numbers of rows.

    Args:
        rows: of each seat, prompt by prompt and as many seats a prompt, its row; any row where it is empty: ``[G * m]``.
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


def _seated(x: Tensor, prompts: int, seats: Seats | None) -> Tensor:
    """Rows ``[R, H_kv, r, d]`` as members of their prompts, ``[G, H_kv, m, r, d]``."""
    x = x if seats is None else x.index_select(0, seats.rows)
    return x.unflatten(0, (prompts, -1)).transpose(1, 2)


def _risen(x: Tensor, seats: Seats | None) -> Tensor:
    """Members of prompts ``[G, H_kv, m, r, d]`` as rows, ``[R, H_kv, r, d]``."""
    x = x.transpose(1, 2).flatten(0, 1)
    return x if seats is None else x.index_select(0, seats.seats)


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
        masks: added to the scores: of the prompts ``[G, 1, 1, 1, P]``, of the rows' own ``[R, 1, 1, T]``.
        softcap, sinks: see :func:`rewardkit.policies.language.attention.attend`.

    Returns:
        ``[R, 1, H, D]``.
    """
    count, (rows, heads) = len(prompts[0]), own[0].shape[:2]
    width = prompts[0].shape[2]
    keys, values = (x.flatten(0, 1) for x in prompts)
    own_keys, own_values = (x.flatten(0, 1) for x in own)
    query = query * (query.shape[-1] ** -0.5 if scale is None else scale)
    query = query.reshape(rows, heads, -1, query.shape[-1])
    asked = _seated(query, count, seats)
    far = torch.bmm(asked.flatten(2, 3).flatten(0, 1), keys.transpose(1, 2)).view(*asked.shape[:-1], width)
    near = torch.bmm(query.flatten(0, 1), own_keys.transpose(1, 2)).unflatten(0, (rows, heads))
    if softcap is not None:
        far, near = (softcap * torch.tanh(x / softcap) for x in (far, near))
    far, near = (x if mask is None else x + mask for x, mask in zip((far, near), masks, strict=True))
    scores = torch.cat([far, _seated(near, count, seats)], -1)
    if sinks is not None:
        column = sinks.to(scores.dtype).view(1, heads, 1, -1, 1)
        scores = torch.cat([scores, column.expand(*scores.shape[:-1], 1)], -1)
    weights = scores.softmax(-1, dtype=torch.float32).to(query.dtype)
    far = torch.bmm(weights[..., :width].flatten(2, 3).flatten(0, 1), values).view(*asked.shape[:-1], -1)
    mine = _risen(weights[..., width : width + own[0].shape[2]], seats).flatten(0, 1)
    found = _risen(far, seats) + torch.bmm(mine, own_values).unflatten(0, (rows, heads))
    return found.flatten(1, 2)[:, None]
