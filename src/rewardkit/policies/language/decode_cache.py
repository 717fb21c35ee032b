"""Keys and values while sampling: those of a prompt once for all its rows, and those that each row has added."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from rewardkit.policies.language.decode_attention import Seats, attend_rows

Pair = tuple[Tensor, Tensor]
"""Keys and values."""
CHUNK = 32
"""Columns, at least, by which the room of what rows add grows."""
EMPTY = 0.25
"""Places without rows leave when there are more than this part of all; before that, other prompts may take them."""


class _Read(NamedTuple):
    """What a layer reads in a step: the first column of prompts and of rows that its window shows, and the masks."""

    far: int
    near: int
    masks: tuple[Tensor | None, Tensor | None]


class DecodeCache:
    """What the attention function reads and appends to, one new token a row.

    Prompts have places, ``[G, H_kv, P, D]``, each with its last token in the last column. Rows stand in the order of
    their prompts. What they add goes into columns ``[R, H_kv, C, D]`` that all share: in a step every row writes the
    same column, and a row that came later begins in a later one. So a window is a run of columns, and rows that began
    together need no mask.
    """

    def __init__(self) -> None:
        self.prompts: list[Pair] = []  # of each call of the attention function in a forward pass, in order
        self.own: list[Pair] = []
        self.lengths: list[int] = []  # of each place, tokens of its prompt
        self.begins: list[int] = []  # of each place, the first column of its rows
        self.places: list[int] = []  # of each row, that of its prompt
        self.at = -1  # the newest token's column
        self._stood: list[int] = []  # of each row, where it stands in ``own``; -1 for one that has added nothing
        self._settled = True
        self._capacity = 0
        self._turn = 0  # calls so far in this forward pass
        self._seats: Seats | None = None
        self._masks: dict[Any, Any] = {}
        self._reads: dict[Any, _Read] = {}

    def put(self, kept: Sequence[Pair], spans: Sequence[Tensor], n: int) -> list[int]:
        """Add prompts with ``n`` rows each.

        Args:
            kept: of each call of the attention function, keys and values of a packed row, ``[1, H_kv, L, D]``.
            spans: of each prompt, its columns in there, long.

        Returns:
            of each row, its number so far; new ones are numbered behind those that there were.
        """
        free = sorted(set(range(len(self.lengths))) - set(self.places))
        chosen = [*free, *range(len(self.lengths), len(self.lengths) + len(spans))][: len(spans)]
        fresh = max(0, max(chosen) + 1 - len(self.lengths))
        self.lengths += [0] * fresh
        self.begins += [0] * fresh
        for place, span in zip(chosen, spans, strict=True):
            self.lengths[place], self.begins[place] = len(span), self.at + 1
        widest, places = max(len(s) for s in spans), len(self.lengths)
        columns = torch.stack([pad(s, (widest - len(s), 0)) for s in spans])
        stored: Sequence[tuple[Tensor | None, Tensor | None]] = self.prompts or [(None, None)] * len(kept)
        self.prompts = [
            (_put(old[0], new[0], columns, chosen, places), _put(old[1], new[1], columns, chosen, places))
            for old, new in zip(stored, kept, strict=True)
        ]
        self.places += [p for p in chosen for _ in range(n)]
        self._stood += [-1] * (n * len(chosen))
        order = sorted(range(len(self.places)), key=self.places.__getitem__)
        self.select(order)
        return order

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows, which are in the order of their prompts."""
        self.places = [self.places[i] for i in rows]
        self._stood = [self._stood[i] for i in rows]
        self._settled = False

    def advance(self) -> None:
        """Make room for one more token of each row."""
        if not self._settled:
            self._settle()
        self.at, self._turn = self.at + 1, 0
        self._reads.clear()
        if self.at == self._capacity:
            self._capacity += max(CHUNK, self._capacity // 2)
            self._masks.clear()
            self._own(lambda x: pad(x, (0, 0, 0, self._capacity - x.shape[2])))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, *, window: int | None, **how: Any) -> Tensor:
        """Append ``[R, H_kv, 1, D]`` and attend; see :func:`attend_rows`. ``window``: the layer's."""
        if self._turn == len(self.own):
            blank = (x.new_zeros(*x.shape[:2], self._capacity, x.shape[3]) for x in (key, value))
            self.own.append((next(blank), next(blank)))
        own, prompts = self.own[self._turn], self.prompts[self._turn]
        self._turn += 1
        for room, new in zip(own, (key, value), strict=True):
            room.select(2, self.at).copy_(new.select(2, 0))
        read = self._read(window, query, prompts[0].shape[2])
        far = (prompts[0][:, :, read.far :], prompts[1][:, :, read.far :]) if read.far else prompts
        near = own[0][:, :, read.near : self.at + 1], own[1][:, :, read.near : self.at + 1]
        return attend_rows(query, far, near, self._seats, read.masks, **how)

    def _own(self, change: Callable[[Tensor], Tensor]) -> None:
        self.own = [(change(keys), change(values)) for keys, values in self.own]

    def _settle(self) -> None:
        """Bring what is stored in line with the rows that are left and those that came."""
        left = sorted(set(self.places))
        if len(left) < (1 - EMPTY) * len(self.lengths):
            self.lengths, self.begins = [self.lengths[p] for p in left], [self.begins[p] for p in left]
            self.places = [left.index(p) for p in self.places]
            longest = max(self.lengths)

            def kept(x: Tensor) -> Tensor:
                return x[:, :, x.shape[2] - longest :].index_select(0, torch.tensor(left, device=x.device))

            self.prompts = [(kept(keys), kept(values)) for keys, values in self.prompts]
        first = min(self.begins[p] for p in self.places)
        width = self.at + 1 - first
        self._capacity = width + max(CHUNK, width // 2)
        to = torch.tensor([i for i, stood in enumerate(self._stood) if stood >= 0])
        source = torch.tensor([stood for stood in self._stood if stood >= 0])

        def moved(x: Tensor) -> Tensor:
            roomy = x.new_zeros(len(self.places), x.shape[1], self._capacity, x.shape[3])
            old = x[:, :, first : first + width].index_select(0, source.to(x.device))
            roomy[:, :, :width].index_copy_(0, to.to(x.device), old)
            return roomy

        if len(to):
            self._own(moved)
        else:
            self.own.clear()
        self.begins, self.at = [b - first for b in self.begins], self.at - first
        self._stood = list(range(len(self.places)))
        self._seats = Seats.of(self.places, len(self.lengths), self.prompts[0][0].device)
        self._masks.clear()
        self._settled = True

    def _read(self, window: int | None, like: Tensor, width: int) -> _Read:
        """What a layer with this window reads of prompts of ``width`` columns; found out once a step."""
        key = (window, like.device)
        if key not in self._reads:
            far, near = self._static(like, width)
            # The newest token of a row is that many tokens behind the last one of its prompt, less one.
            hidden = {p: width + self.at + 1 - self.begins[p] - (window or math.inf) for p in set(self.places)}
            first, last = (int(min(width, max(0, end(hidden.values())))) for end in (min, max))
            if last > first:
                low = torch.tensor([hidden.get(p, 0) for p in range(len(self.lengths))], device=like.device)
                beyond = torch.arange(width, device=like.device) < low[:, None, None]
                moving = like.new_zeros(beyond.shape).masked_fill_(beyond, -math.inf)
                far = moving if far is None else far + moving
            start = max(0, self.at + 1 - window) if window else 0
            cut = None if near is None else near[..., start : self.at + 1]
            self._reads[key] = _Read(first, start, (None if far is None else far[..., first:], cut))
        return self._reads[key]

    def _static(self, like: Tensor, width: int) -> tuple[Tensor | None, Tensor | None]:
        """What hides the columns before a prompt's first token and before a row's; made once an arrangement."""
        key = (like.device, width)
        if key not in self._masks:
            far = _before([width - length for length in self.lengths], width, like)
            near = _before([self.begins[p] for p in self.places], self._capacity, like)
            self._masks[key] = far, near
        return self._masks[key]


def _before(firsts: Sequence[int], width: int, like: Tensor) -> Tensor | None:
    """Minus infinity in the columns before each one's first: ``[n, 1, width]``; ``None`` where all begin at 0."""
    if not any(firsts):
        return None
    hidden = torch.arange(width) < torch.tensor(firsts)[:, None]
    return torch.zeros(hidden.shape, dtype=like.dtype).masked_fill_(hidden, -math.inf)[:, None].to(like.device)


def _put(old: Tensor | None, row: Tensor, columns: Tensor, chosen: Sequence[int], places: int) -> Tensor:
    """Columns ``[k, W]`` of a packed row ``[1, H_kv, L, D]`` at the chosen places: the old store, or a larger one."""
    fresh = row[0].index_select(1, columns.flatten().to(row.device)).unflatten(1, columns.shape).transpose(0, 1)
    width = columns.shape[1]
    if old is None or len(old) < places or old.shape[2] < width:
        larger = fresh.new_zeros(places, fresh.shape[1], max(width, 0 if old is None else old.shape[2]), fresh.shape[3])
        if old is not None:
            larger[: len(old), :, larger.shape[2] - old.shape[2] :] = old
        old = larger
    old[:, :, old.shape[2] - width :].index_copy_(0, torch.tensor(chosen, device=old.device), fresh)
    return old
