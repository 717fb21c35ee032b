"""Transitions kept for learning from them again and again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from rewardkit.registry import entry
from rewardkit.types import Rollout, Sample


class Source(Protocol):
    """What transitions are drawn from."""

    def draw(self, n: int) -> Rollout: ...


@entry("data:replay", tags=("off-policy",))
class Replay:
    """The last ``size`` rows that were added, drawn uniformly with replacement.

    Rows are of one position each, as ``Rollout.steps`` makes them. Outputs are not kept: a whole episode would hang on
    each of its steps; score before you add. What it draws is a function of ``seed`` and of what was done before; its
    state resumes.

    Args:
        size: rows kept, the oldest are dropped first. seed: of the draws.

    >>> replay = Replay(10)
    >>> replay.add(Rollout([Sample(i) for i in range(3)], torch.ones(3, 1), tensors={"x": torch.arange(3.0)[:, None]}))
    >>> len(replay), replay.draw(5)["x"].shape
    (3, torch.Size([5, 1]))
    """

    def __init__(self, size: int, *, seed: int = 0) -> None:
        if size < 1:
            raise ValueError(f"Replay needs room for at least one row, not {size}")
        self.size, self.added = size, 0
        self.generator = torch.Generator().manual_seed(seed)
        self._samples: list[Sample] = []
        self._columns: dict[tuple[str, str], Tensor] = {}
        self._how: dict[str, Any] = {}

    def __len__(self) -> int:
        return min(self.added, self.size)

    def add(self, rows: Rollout) -> None:
        """Keep these rows.

        Raises:
            ValueError: for rows of several positions, inputs that are lists, or other tensors than those kept before.
        """
        if rows.mask.shape[1] != 1:
            raise ValueError(f"Replay keeps rows of one position, not {rows.mask.shape[1]}: add(rollout.steps())")
        columns = {("mask", ""): rows.mask}
        for kind in ("segments", "tensors", "inputs"):
            columns |= {(kind, name): x for name, x in getattr(rows, kind).items()}
        listed = [name for (_, name), x in columns.items() if not isinstance(x, Tensor)]
        if listed:
            raise ValueError(f"Replay keeps tensors, and the inputs {listed} are lists")
        if not self._columns:
            self._columns = {k: x.new_zeros((self.size, *x.shape[1:])) for k, x in columns.items()}
            self._samples, self._how = [Sample(None)] * self.size, {k: v for k, v in rows.how.items() if k != "drawn"}
        if columns.keys() != self._columns.keys():
            odd = sorted(name or kind for kind, name in columns.keys() ^ self._columns.keys())
            raise ValueError(f"Replay: {odd} are not in every rollout that was added")
        kept = torch.arange(len(rows))[-self.size :]
        places = (self.added + kept) % self.size
        for key, x in columns.items():
            self._columns[key][places] = x[kept].to(self._columns[key])
        for row, place in zip(kept.tolist(), places.tolist(), strict=True):
            self._samples[place] = Sample(rows.samples[row].prompt)
        self.added += len(rows)

    def draw(self, n: int) -> Rollout:
        """``n`` rows, each in a group of its own.

        Raises:
            ValueError: if nothing was added.
        """
        if not len(self):
            raise ValueError("Replay is empty: add transitions before drawing")
        return self.rows(torch.randint(len(self), (n,), generator=self.generator))

    def rows(self, places: Tensor | None = None) -> Rollout:
        """The rows at these places; by default all that are kept."""
        index = torch.arange(len(self)) if places is None else places
        found: dict[str, dict[str, Tensor]] = {"mask": {}, "segments": {}, "tensors": {}, "inputs": {}}
        for (kind, name), x in self._columns.items():
            found[kind][name] = x[index]
        samples = [self._samples[i] for i in index.tolist()]
        parts = {k: v for k, v in found.items() if k != "mask"}
        return Rollout(samples, found["mask"][""], how=dict(self._how), **parts)  # type: ignore[arg-type]

    def state_dict(self) -> dict[str, Any]:
        """Rows, counters and the generator: what is drawn next is the same after :meth:`load_state_dict`."""
        return {
            "added": self.added,
            "generator": self.generator.get_state(),
            "columns": {f"{kind}/{name}": x[: len(self)].clone() for (kind, name), x in self._columns.items()},
            "prompts": [s.prompt for s in self._samples[: len(self)]],
            "how": self._how,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`.

        Raises:
            ValueError: if more rows were kept than there is room for here.
        """
        rows = len(state["prompts"])
        if rows > self.size or (state["added"] > rows and rows != self.size):
            raise ValueError(f"this Replay has size {self.size}; the state is of one of another size ({rows} rows)")
        self.added, self._how = state["added"], dict(state["how"])
        self.generator.set_state(state["generator"])
        self._samples = [Sample(p) for p in [*state["prompts"], *[None] * (self.size - rows)]]
        self._columns = {}
        for key, x in state["columns"].items():
            kind, _, name = key.partition("/")
            self._columns[kind, name] = torch.cat([x, x.new_zeros((self.size - rows, *x.shape[1:]))])


@entry(
    "data:mixed", tags=("off-policy",), source="Ball et al. 2023 (RLPD), arXiv:2302.02948: half of each batch offline"
)
@dataclass(frozen=True)
class Mixed:
    """Draws a fixed share of every batch from one source and the rest from another.

    Args:
        first, second: such as a :class:`Replay` of demonstrations and one of own experience. share: of the first.

    >>> demonstrations, own = Replay(4), Replay(4)
    >>> for replay, value in ((demonstrations, 1.0), (own, 0.0)):
    ...     replay.add(Rollout([Sample(0)], torch.ones(1, 1), tensors={"x": torch.tensor([[value]])}))
    >>> Mixed(demonstrations, own, share=0.25).draw(8)["x"].sum().item()
    2.0
    """

    first: Source
    second: Source
    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"Mixed.share lies between 0 and 1, not {self.share}")

    def draw(self, n: int) -> Rollout:
        """``n`` rows, the first source's before the second's."""
        some = round(self.share * n)
        parts = [source.draw(k) for source, k in ((self.first, some), (self.second, n - some)) if k]
        return Rollout.cat(parts, regroup=True)
