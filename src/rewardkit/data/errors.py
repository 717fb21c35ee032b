"""What reading can meet: errors that name file, line, field and mend, and the report that counts every rule applied."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


class DataError(ValueError):
    """Bad input, located.

    Args:
        what: what is wrong.
        path: file or data set. line: line of a text file, row of a table, both counted from 1; 0 for the whole file.
        field: column. mend: what the reader can do about it.
        rule: short name under which a :class:`ReadReport` counts it.
    """

    def __init__(
        self, what: str, *, path: str, line: int = 0, field: str | None = None, mend: str = "", rule: str = "bad value"
    ) -> None:
        self.what, self.path, self.line, self.field, self.mend, self.rule = what, path, line, field, mend, rule
        place = f"{path}:{line}" if line else path
        column = f"field {field!r}: " if field else ""
        super().__init__(f"{place}: {column}{what}" + (f" ({mend})" if mend else ""))


@dataclass
class ReadReport:
    """What one pass over a source met.

    Args:
        rows: rows read. kept: items handed out.
        skipped: rows left out, by rule. noted: rows kept although a rule spoke of them, by rule.
        examples: the first places of each rule.
    """

    rows: int = 0
    kept: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    noted: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def skip(self, rule: str, example: str) -> None:
        """Count a row that is left out."""
        self.skipped[rule] += 1
        self._keep(rule, example)

    def note(self, rule: str, example: str) -> None:
        """Count a row that is kept."""
        self.noted[rule] += 1
        self._keep(rule, example)

    def _keep(self, rule: str, example: str) -> None:
        places = self.examples.setdefault(rule, [])
        if len(places) < 3:
            places.append(example)

    def __str__(self) -> str:
        lines = [f"{self.rows} rows read, {self.kept} kept, {sum(self.skipped.values())} skipped"]
        for title, counts in (("skipped", self.skipped), ("noted", self.noted)):
            for rule, count in sorted(counts.items(), key=lambda item: -item[1]):
                lines.append(f"  {title} {count}: {rule}; first: {self.examples[rule][0]}")
        return "\n".join(lines)
