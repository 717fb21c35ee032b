"""Search over anything that can be proposed and valued: partial outputs, prompts, rubrics, programs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from rewardkit.registry import entry

Item = TypeVar("Item")


@dataclass(eq=False)
class Node(Generic[Item]):
    """One thing that was tried.

    Args:
        item: the thing. value: what it is worth; NaN where it could not be valued. parent: what it was made from.
        round: when it was tried, the start being 0. notes: whatever propose and value want to remember of it.
    """

    item: Item
    value: float = math.nan
    parent: Node[Item] | None = None
    round: int = 0
    notes: dict[str, Any] = field(default_factory=dict)

    def line(self) -> list[Node[Item]]:
        """From the start down to this node."""
        return [*(self.parent.line() if self.parent is not None else []), self]


@dataclass(frozen=True, eq=False)
class Turn(Generic[Item]):
    """After one round: what was tried in it, what is kept of all so far, and how many items were valued in all."""

    tried: list[Node[Item]]
    front: list[Node[Item]]
    spent: int

    @property
    def best(self) -> Node[Item]:
        """The first of the kept nodes with the largest value."""
        return max(self.front, key=lambda n: n.value)


Propose = Callable[[Sequence[Node[Item]]], Iterable[tuple[Node[Item] | None, Item]]]
Value = Callable[[Sequence[Node[Item]]], Sequence[float]]
Keep = Callable[[Sequence[Node[Item]], Sequence[Node[Item]]], list[Node[Item]]]


@entry("guidance:search", aliases=("beam_search", "hill_climb", "evolve"), tags=("no-gradients", "search"))
def search(
    start: Iterable[Item], propose: Propose[Item], value: Value[Item], keep: Keep[Item], *, budget: int
) -> Iterator[Turn[Item]]:
    """Propose, value, keep, and again, until nothing is proposed, nothing is kept, or the budget is spent.

    Hill climbing is ``keep=elite(1)``, evolution ``elite(n)``, beam search ``beam(n)``; what differs otherwise lies in
    what is proposed. The nodes hold their parents, so that the tree is what the turns yielded.

    Args:
        start: the first items; valued too. propose: from the front to ``(parent, item)`` pairs.
        value: a number for each node, larger is better, NaN where it failed; it sees a round's nodes together, so that
            it may compare them.
        keep: from the front and what was tried to the next front. Nodes that failed are not shown to it.
        budget: items that may be valued, the start's included; a round that would exceed it is cut short.

    Yields:
        a :class:`Turn` a round, the start's first.

    Raises:
        ValueError: for a budget below 1, or a value that gives another count of numbers than it was given nodes.

    >>> turns = search([0], lambda front: [(n, n.item + d) for n in front for d in (-1, 1)],
    ...     lambda nodes: [-abs(n.item - 3) for n in nodes], elite(1), budget=20)
    >>> best = [turn.best for turn in turns][-1]
    >>> [n.item for n in best.line()]
    [0, 1, 2, 3]
    """
    if budget < 1:
        raise ValueError(f"search needs a budget of at least one item, not {budget}")
    front: list[Node[Item]] = []
    proposals: list[tuple[Node[Item] | None, Item]] = [(None, item) for item in start]
    number = spent = 0
    while proposals and spent < budget:
        tried = [Node(item, parent=parent, round=number) for parent, item in proposals[: budget - spent]]
        values = list(value(tried))
        if len(values) != len(tried):
            raise ValueError(f"search: value gave {len(values)} numbers for {len(tried)} nodes")
        for node, v in zip(tried, values, strict=True):
            node.value = float(v)
        spent, number = spent + len(tried), number + 1
        front = keep(front, [n for n in tried if not math.isnan(n.value)])
        if not front:
            return
        yield Turn(tried, front, spent)
        proposals = list(propose(front))


def elite(n: int) -> Keep[Any]:
    """Keep the ``n`` best of old and new; of equals the older."""

    def keep(front: Sequence[Node[Any]], tried: Sequence[Node[Any]]) -> list[Node[Any]]:
        return sorted([*front, *tried], key=lambda x: -x.value)[:n]

    return keep


def beam(n: int) -> Keep[Any]:
    """Keep the ``n`` best of the new and of the old that nothing was made of: those are finished."""

    def keep(front: Sequence[Node[Any]], tried: Sequence[Node[Any]]) -> list[Node[Any]]:
        parents = {id(x.parent) for x in tried}
        finished = [x for x in front if id(x) not in parents]
        return sorted([*finished, *tried], key=lambda x: -x.value)[:n]

    return keep
