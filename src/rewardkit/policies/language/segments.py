"""Which tokens of a packed row see which: a plan of attention calls in which nothing that is masked is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

WASTE = 1.25
"""Segments share a call where padding them to one shape costs at most this factor of their own scores ..."""
SMALL = 2**16
"""... or where all of them, padded, have no more scores than this."""


class Call(NamedTuple):
    """Segments that attend together, padded to one shape on the right.

    Args:
        members: their numbers. keys: of each member, the segments whose keys it reads, itself last, each with the
            first of its tokens that is read. causal: plain causal attention of each to itself, without a mask.
        mask: added to the scores, float ``[n, 1, Q, K]``; ``None`` where nothing is masked.
    """

    members: list[int]
    keys: list[list[tuple[int, int]]]
    causal: bool = False
    mask: Tensor | None = None


@dataclass(eq=False)
class Segments:
    """The segments of one packed row, one after another: each sees its ancestors and itself.

    Args:
        sizes: tokens of each. parents: number of the segment that each goes on from, an earlier one; -1 for a root.
        blocks: long ``[L]``, tokens of an equal number that is not -1 see each other, whichever comes first (the
            images of Gemma 3). causal: else a token sees all of its segment, and there are roots only.
        asked: how many of each segment's last tokens have queries; default all. Keys have all of them.
        narrow: what the last layer is to do; see :mod:`rewardkit.policies.language.narrow`.
    """

    sizes: Sequence[int]
    parents: Sequence[int]
    blocks: Tensor | None = None
    causal: bool = True
    asked: Sequence[int] = ()
    narrow: Any = field(default=None, init=False, repr=False)
    _plans: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self.asked = self.asked or self.sizes

    def path(self, segment: int) -> list[int]:
        """Its ancestors, root first, and itself."""
        found = []
        while segment >= 0:
            found.append(segment)
            segment = self.parents[segment]
        return found[::-1]

    def plan(self, window: int | None, like: Tensor) -> list[Call]:
        """The calls of a layer with this window, on the device and in the type of ``like``; made once."""
        key = (window, like.device, like.dtype)
        if key not in self._plans:
            self._plans[key] = [self._call(group, window, like) for group in self._groups(window)]
        return self._plans[key]

    def reads(self, segment: int, window: int | None) -> list[tuple[int, int]]:
        """The segments whose keys it reads, each with the first of its tokens that any token of ``segment`` sees."""
        path = self.path(segment)
        beyond = 0
        if window is not None and self.causal:
            beyond = max(0, sum(self.sizes[s] for s in path[:-1]) - window + 1)
        found = []
        for s in path:
            if beyond < self.sizes[s]:
                found.append((s, beyond))
            beyond = max(0, beyond - self.sizes[s])
        return found

    def gathered(self, window: int | None, like: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[int, int]]:
        """For kernels of rows of different lengths: the columns whose keys the segments read, one after another, long;
        where each one's queries and keys end, int32 ``[n + 1]`` each, from 0; the most queries and keys of one."""
        key = ("gathered", window, like.device)
        if key not in self._plans:
            first = [0, *accumulate(self.sizes)]
            read = [self.reads(s, window) for s in range(len(self.sizes))]
            columns = [torch.arange(first[s] + skip, first[s + 1]) for spans in read for s, skip in spans]
            widths = [sum(self.sizes[s] - skip for s, skip in spans) for spans in read]
            ends = (torch.tensor([0, *accumulate(x)], dtype=torch.int32).to(like.device) for x in (self.asked, widths))
            self._plans[key] = torch.cat(columns).to(like.device), tuple(ends), (max(self.asked), max(widths))
        return self._plans[key]

    def _width(self, segment: int, window: int | None) -> int:
        return sum(self.sizes[s] - first for s, first in self.reads(segment, window))

    def _groups(self, window: int | None) -> list[list[int]]:
        """Segments of like shape."""
        width = [self._width(s, window) for s in range(len(self.sizes))]
        groups: list[list[int]] = []
        scores = 0
        asking = [s for s, asked in enumerate(self.asked) if asked]
        for s in sorted(asking, key=lambda s: (-width[s], -self.asked[s])):
            own = self.asked[s] * width[s]
            if groups:
                together = [*groups[-1], s]
                padded = len(together) * max(self.asked[t] for t in together) * width[together[0]]
                if padded <= max(WASTE * (scores + own), SMALL):
                    groups[-1], scores = together, scores + own
                    continue
            groups.append([s])
            scores = own
        return groups

    def _call(self, members: list[int], window: int | None, like: Tensor) -> Call:
        keys = [self.reads(s, window) for s in members]
        most_q = max(self.asked[s] for s in members)
        alone = all(read == [(s, 0)] and self.asked[s] == self.sizes[s] for s, read in zip(members, keys, strict=True))
        if self.causal and alone and self.blocks is None and (window is None or window >= most_q):
            # What is padding comes last: no query that is not padding sees it.
            return Call(members, keys, causal=True)
        most_k = max(self._width(s, window) for s in members)
        seen = torch.zeros(len(members), most_q, most_k, dtype=torch.bool)
        for i, s in enumerate(members):
            seen[i, : self.asked[s], : self._width(s, window)] = self._sees(s, window)[-self.asked[s] :]
            # A query that is padding sees something, or its softmax would have nothing to divide by.
            seen[i, self.asked[s] :, 0] = True
        if bool(seen.all()):
            return Call(members, keys)
        mask = torch.zeros(seen.shape, dtype=like.dtype).masked_fill(~seen, -math.inf)
        return Call(members, keys, mask=mask[:, None].to(like.device))

    def _sees(self, segment: int, window: int | None) -> Tensor:
        """Which of the keys that it reads each of its tokens sees: bool ``[Q, K]``."""
        size, width = self.sizes[segment], self._width(segment, window)
        # Keys end with the segment's own, so the last query is level with the last key.
        ahead = torch.arange(size)[:, None] + (width - size) - torch.arange(width)[None, :]
        sees = ahead >= 0 if self.causal else torch.ones_like(ahead, dtype=torch.bool)
        if self.blocks is not None:
            first = [0, *accumulate(self.sizes)]
            keys = [self.blocks[first[s] + skip : first[s + 1]] for s, skip in self.reads(segment, window)]
            mine, theirs = self.blocks[first[segment] : first[segment + 1], None], torch.cat(keys)[None, :]
            sees = sees | ((mine == theirs) & (mine >= 0))
        if window is None:
            return sees
        return sees & ((ahead if self.causal else ahead.abs()) < window)
