"""Rows that begin alike as tries: what they share stands once, each branch behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

LEAST = 16
"""Tokens that rows must have in common beyond what they share already for a node of their own: a node has its price."""


@dataclass(frozen=True)
class Node:
    """A run of tokens.

    Args:
        ids: ``[n]``. depth: position of its first token in every row through it. parent: its place in the list of
            nodes, -1 for a root.
    """

    ids: np.ndarray
    depth: int
    parent: int


@dataclass
class Trie:
    """Rows with a common beginning, or a row by itself.

    Args:
        nodes: parents before children. rows: numbers of the rows in it. leaves: the node in which each row ends.
    """

    nodes: list[Node] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    leaves: list[int] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Tokens that are computed."""
        return sum(len(n.ids) for n in self.nodes)

    def path(self, node: int) -> list[int]:
        """Places of a node's ancestors and of itself, root first."""
        found = []
        while node >= 0:
            found.append(node)
            node = self.nodes[node].parent
        return found[::-1]


def tries(rows: Sequence[Sequence[int]], kinds: Sequence[object], budget: int, least: int = LEAST) -> list[Trie]:
    """The rows as tries of about ``budget`` tokens at most; a row that is longer stands alone.

    The state of a causal model at a token depends on the tokens before it alone, so any beginning may be shared: a
    prompt, a first turn, the steps before a fork, a whole row that comes twice.

    Args:
        rows: ids, none empty. kinds: hashable; rows of different kinds share nothing, whatever their ids.
        least: see :data:`LEAST`.

    >>> [(t.rows, t.size) for t in tries([[1, 2, 3, 4], [7, 7], [1, 2, 3, 5, 6]], [None] * 3, 100, least=2)]
    [([0, 2], 6), ([1], 2)]
    """
    ids = [np.asarray(row, dtype=">u4") for row in rows]
    keys = [(hash(kind), i.tobytes()) for kind, i in zip(kinds, ids, strict=True)]
    order = sorted(range(len(rows)), key=keys.__getitem__)
    alike = [_alike(ids, kinds, a, b) for a, b in pairwise(order)]
    found = [
        trie
        for first, last in _parts(alike, 0, len(order), least)
        for trie in _within(ids, order[first:last], alike[first : last - 1], budget, least)
    ]
    return sorted(found, key=lambda t: min(t.rows))


def binned(found: Sequence[Trie], budget: int) -> Iterator[list[Trie]]:
    """Tries in their order, as many together as ``budget`` tokens hold."""
    batch: list[Trie] = []
    for trie in found:
        if batch and sum(t.size for t in batch) + trie.size > budget:
            yield batch
            batch = []
        batch.append(trie)
    if batch:
        yield batch


def _alike(ids: Sequence[np.ndarray], kinds: Sequence[object], a: int, b: int) -> int:
    """How many tokens two rows begin with in common."""
    if kinds[a] != kinds[b]:
        return 0
    most = min(len(ids[a]), len(ids[b]))
    differ = ids[a][:most] != ids[b][:most]
    return int(differ.argmax()) if differ.any() else most


def _parts(alike: Sequence[int], first: int, last: int, least: int) -> Iterator[tuple[int, int]]:
    """Runs of sorted rows ``first`` to ``last`` in which neighbours have at least ``least`` tokens in common."""
    begin = first
    for i in range(first, last - 1):
        if alike[i] < least:
            yield begin, i + 1
            begin = i + 1
    yield begin, last


def _within(
    ids: Sequence[np.ndarray], rows: Sequence[int], alike: Sequence[int], budget: int, least: int
) -> Iterator[Trie]:
    """Sorted rows as tries; where one would be larger than the budget, its rows are divided among several."""
    begin, size = 0, 0
    for i, row in enumerate(rows):
        new = len(ids[row]) - (alike[i - 1] if i > begin else 0)
        if i > begin and size + new > budget:
            yield _trie(ids, rows[begin:i], alike[begin : i - 1], least)
            begin, size, new = i, 0, len(ids[row])
        size += new
    yield _trie(ids, rows[begin:], alike[begin:], least)


def _trie(ids: Sequence[np.ndarray], rows: Sequence[int], alike: Sequence[int], least: int) -> Trie:
    """One trie of sorted rows."""
    trie = Trie()
    left = [(0, len(rows), 0, -1)]
    while left:
        first, last, depth, parent = left.pop()
        shared = min(alike[first : last - 1], default=len(ids[rows[first]]))
        if shared > depth:
            trie.nodes.append(Node(ids[rows[first]][depth:shared].astype(np.int64), depth, parent))
            parent = len(trie.nodes) - 1
        ends = first
        while ends < last and len(ids[rows[ends]]) == shared:
            trie.rows.append(rows[ends])
            trie.leaves.append(parent)
            ends += 1
        if ends < last:
            left += [(a, b, shared, parent) for a, b in _parts(alike, ends, last, shared + least)][::-1]
    return trie
