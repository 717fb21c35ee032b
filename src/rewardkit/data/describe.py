"""What a source holds, in one pass: the first thing to look at."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rewardkit.data.dialogue import characters
from rewardkit.data.errors import ReadReport
from rewardkit.data.reader import read
from rewardkit.data.rows import places
from rewardkit.data.split import position
from rewardkit.types import Judgement


@dataclass(frozen=True)
class Description:
    """A summary.

    Args:
        schema: as detected, ``None`` for a source without a good row. report: the rules that spoke.
        prompts: different prompts. ties: judgements that call all items equal.
        lengths: name -> (smallest, median, largest) in characters: ``prompt``, and ``output``, or ``best`` and
            ``others`` for comparisons.
        longer_wins: share of the untied pairs of unequal length in which the longer one was judged better.
    """

    name: str
    schema: str | None
    report: ReadReport
    prompts: int
    ties: int
    lengths: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    longer_wins: float | None = None

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.schema or 'no good row'}, {self.prompts} prompts, {self.ties} ties"]
        for name, (low, middle, high) in self.lengths.items():
            lines.append(f"  {name}: {low} to {high} characters, median {middle}")
        if self.longer_wins is not None:
            lines.append(f"  the longer one wins {self.longer_wins:.3f} of the pairs of unequal length")
        return "\n".join([*lines, str(self.report)])


def describe(name: str, **options: Any) -> Description:
    """Read all of a source and summarise it; bad rows are counted, not raised. Options: :func:`rewardkit.data.read`.

    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "pairs.jsonl"
    >>> _ = path.write_text('{"prompt": "2 + 2?", "chosen": "4", "rejected": "five"}\\n')
    >>> describe(str(path)).lengths
    {'prompt': (6, 6, 6), 'best': (1, 1, 1), 'others': (4, 4, 4)}
    """
    reader = read(name, **{"on_error": "skip", **options})
    sizes: dict[str, array[int]] = {}
    prompts: set[float] = set()
    ties = longer = unequal = 0

    def measure(what: str, value: Any) -> int:
        size = characters(value)
        sizes.setdefault(what, array("q")).append(size)
        return size

    for item in reader:
        prompts.add(position(item))
        if not isinstance(item, Judgement):
            measure("prompt", item.prompt)
            if item.output is not None:
                measure("output", item.output)
            continue
        measure("prompt", item.items[0].prompt)
        ordered = len(item.items) > 1 and (item.rank or item.p or item.rating) is not None
        ties += item.tied
        at = places(item) if ordered else ()
        found = [
            measure("output" if not ordered else "best" if at[i] == 0 else "others", s.output)
            for i, s in enumerate(item.items)
        ]
        if len(at) == 2 and not item.tied and found[0] != found[1]:
            unequal += 1
            longer += (found[0] > found[1]) == (at[0] < at[1])
    lengths = {what: _spread(values) for what, values in sizes.items()}
    return Description(
        name, reader.schema, reader.report, len(prompts), ties, lengths, longer / unequal if unequal else None
    )


def _spread(values: Sequence[int]) -> tuple[int, int, int]:
    ordered = sorted(values)
    return ordered[0], ordered[len(ordered) // 2], ordered[-1]
