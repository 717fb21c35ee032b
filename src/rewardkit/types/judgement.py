"""What was judged: a comparison, a ranking, a rating, a critique."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rewardkit.types.sample import Sample


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a person, a model or a simulator said of one or several samples.

    Exactly one of ``rank``, ``p`` and ``rating`` is given, or none where the judgement is only spans or a note.

    Args:
        items: the samples judged, usually of one prompt: two for a comparison, k for a ranking, one for a rating.
        rank: a place for each item, 0 the best; equal places are a tie.
        p: the probability of each item to be the best (a soft comparison, votes); sums to 1.
        rating: a grade for each item; a thumb is 1.0 or 0.0.
        strength: how much better the best is, in the annotator's own units.
        aspect: what was asked for (``helpful``, ``harmless`` ...); annotator: who; at: when (unix seconds).
        spans: ``(item, start, end, label)`` in characters of the item's output.
        note: a critique in words.
        weight: how much the judgement counts.
    """

    items: tuple[Sample, ...]
    rank: tuple[int, ...] | None = None
    p: tuple[float, ...] | None = None
    rating: tuple[float, ...] | None = None
    strength: float | None = None
    aspect: str | None = None
    annotator: str | None = None
    at: float | None = None
    spans: tuple[tuple[int, int, int, str], ...] = ()
    note: str | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.items:
            raise ValueError("Judgement.items is empty")
        given = [n for n in ("rank", "p", "rating") if getattr(self, n) is not None]
        if len(given) > 1:
            raise ValueError(f"a Judgement has one of rank, p and rating, not {given}")
        for name in given:
            if len(getattr(self, name)) != len(self.items):
                raise ValueError(f"Judgement.{name} has {len(getattr(self, name))} entries for {len(self.items)} items")
        if self.rank is not None and min(self.rank) != 0:
            raise ValueError(f"Judgement.rank starts at 0 for the best, not {min(self.rank)}")
        if self.rating is not None and not all(map(math.isfinite, self.rating)):
            raise ValueError(f"Judgement.rating must be finite, not {self.rating}")
        if self.p is not None and not (min(self.p) >= 0 and abs(sum(self.p) - 1) <= 1e-6):
            raise ValueError(f"Judgement.p must be a distribution over the items, not {self.p}")
        if not given and not self.spans and self.note is None:
            raise ValueError("a Judgement says something: rank, p, rating, spans or a note")
        for item, begin, end, _ in self.spans:
            if not 0 <= item < len(self.items) or not 0 <= begin <= end:
                raise ValueError(f"Judgement.spans: ({item}, {begin}, {end}) is not a span of one of the items")
        if not self.weight >= 0:
            raise ValueError(f"Judgement.weight must not be negative, not {self.weight}")

    @property
    def tied(self) -> bool:
        """Whether all items were judged equal."""
        values = self.rank or self.p or self.rating
        return values is not None and len(self.items) > 1 and len(set(values)) == 1
