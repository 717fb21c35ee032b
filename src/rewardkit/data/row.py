"""One row under canonical column names, read by typed accessors that raise located errors."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from rewardkit.data.dialogue import Messages, as_messages
from rewardkit.data.errors import DataError
from rewardkit.data.sources import RawRow

ALIASES = {
    "prompt": ("prompt",),
    "messages": ("messages", "conversations", "conversation"),
    "completion": ("completion", "response"),
    "completions": ("completions", "responses"),
    "label": ("label",),
    "score": ("score", "rating"),
    "scores": ("scores", "ratings"),
    "ranks": ("ranks", "ranking"),
    "strength": ("strength", "margin"),
}
"""Canonical column and the names under which it is found; a column that is not listed has its own name only."""

TRUTHS = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}
"""What a label may be; a text in any case, for a table of text (CSV) has no other values."""


@dataclass
class Row:
    """A row and the names of its columns.

    Args:
        raw: the row as read. columns: canonical name -> the file's name, or ``None`` for "there is none".
        used: columns of the file that were read; the others are what rewards may look at.
    """

    raw: RawRow
    columns: Mapping[str, str | None] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    def name(self, column: str) -> str | None:
        """The file's name of a canonical column, where this row has it."""
        if column in self.columns:
            mapped = self.columns[column]
            return mapped if mapped in self.raw.values else None
        taken = set(self.columns.values())
        return next((n for n in ALIASES.get(column, (column,)) if n in self.raw.values and n not in taken), None)

    def has(self, column: str) -> bool:
        """Whether the column is there, be it null."""
        return self.name(column) is not None

    def filled(self, column: str) -> bool:
        """Whether there is a value. A null, with which a table fills a column that a row lacks, is passed over."""
        name = self.name(column)
        if name is not None and self.raw.values[name] is None:
            self.used.add(name)
            return False
        return name is not None

    def error(self, column: str, what: str, mend: str = "", rule: str = "bad value") -> DataError:
        """An error in this row; ``column`` is named as the file names it."""
        shown = self.name(column) or self.columns.get(column) or column
        return DataError(what, path=self.raw.path, line=self.raw.line, field=shown, mend=mend, rule=rule)

    def optional(self, column: str) -> Any:
        """The value, or ``None`` where the column is missing or null."""
        name = self.name(column)
        if name is None:
            return None
        self.used.add(name)
        return self.raw.values[name]

    def value(self, column: str) -> Any:
        """The value.

        Raises:
            DataError: where the column is missing or null.
        """
        name = self.name(column)
        if name is None:
            there = ", ".join(sorted(self.raw.values)) or "none"
            mend = f"this row has: {there}; name another column with columns={{'{column}': ...}}"
            raise self.error(column, "the column is missing", mend, "missing column")
        found = self.optional(column)
        if found is None:
            raise self.error(column, "null", "give a value or drop the row", "null")
        return found

    def said(self, column: str) -> str | Messages:
        """A text, or messages.

        Raises:
            DataError: for anything else.
        """
        value = self.value(column)
        if isinstance(value, str):
            return self.check_text(column, value)
        if isinstance(value, (list, Mapping)):
            return self.messages(column, value)
        raise self.error(column, f"text or messages wanted, not {type(value).__name__}", "", "wrong type")

    def messages(self, column: str, value: Any, where: str = "") -> Messages:
        """``value`` as messages, every text in them checked; ``where`` opens an error's text.

        Raises:
            DataError: for anything else.
        """
        try:
            found = as_messages(value)
        except ValueError as e:
            mend = "messages are [{'role': ..., 'content': ...}, ...]"
            raise self.error(column, f"{where}{e}", mend, "wrong type") from None
        for text in _texts(found):
            self.check_text(column, text)
        return found

    def check_text(self, column: str, text: str) -> str:
        """The text; half a surrogate pair is an error, since no tokenizer and no file can hold it."""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as e:
            raise self.error(
                column, f"character {e.start} is half a surrogate pair", "repair the escape", "invalid UTF-8"
            ) from None
        return text

    def structured(self, column: str) -> Any:
        """An optional list or object, which a table may hold as JSON text."""
        value = self.optional(column)
        if not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except json.JSONDecodeError as e:
            raise self.error(column, f"wrong JSON: {e}", "a list or an object") from None

    def number(self, column: str) -> float:
        """A finite number.

        Raises:
            DataError: for text, NaN, a bool.
        """
        return self.as_number(column, self.value(column))

    def as_number(self, column: str, value: Any) -> float:
        """``value`` as a finite float; a number written as text (CSV) is read."""
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = float(value)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self.error(column, f"a finite number wanted, not {value!r}", "", "wrong type")
        return float(value)

    def items(self, column: str, count: int | None = None) -> list[Any]:
        """A list, of ``count`` entries if given."""
        self.value(column)
        value = self.structured(column)
        if not isinstance(value, (list, tuple)) or not value:
            raise self.error(column, f"a list with entries wanted, not {value!r}", "", "wrong type")
        if count is not None and len(value) != count:
            raise self.error(column, f"{len(value)} entries for {count} completions", "one entry a completion")
        return list(value)

    def numbers(self, column: str, count: int) -> tuple[float, ...]:
        """``count`` finite numbers."""
        return tuple(self.as_number(column, v) for v in self.items(column, count))

    def truth(self, column: str) -> bool:
        """A yes or no: a bool, 0 or 1, or the words true and false in any case; as text too."""
        value = self.value(column)
        known = value.strip().casefold() if isinstance(value, str) else value
        if isinstance(known, (bool, int, float, str)) and known in TRUTHS:
            return TRUTHS[known]
        mend = "true or false, 1 or 0; a graded column is read with columns={'score': ...}"
        raise self.error(column, f"a label is yes or no, not {value!r}", mend, "wrong type")

    def word(self, column: str) -> str | None:
        """An optional text; a number becomes its text."""
        value = self.optional(column)
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return str(value)
        raise self.error(column, f"text wanted, not {type(value).__name__}", f"columns={{'{column}': None}} ignores it")

    def amount(self, column: str) -> float | None:
        """An optional finite number."""
        return None if self.optional(column) is None else self.number(column)

    def time(self, column: str) -> float | None:
        """An optional time: unix seconds, or ISO 8601."""
        value = self.optional(column)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, str):
            try:
                return datetime.fromisoformat(value).timestamp()
            except ValueError:
                pass
        return self.amount(column)

    def rest(self) -> dict[str, Any]:
        """The columns that nobody read, joined with those of a ``hidden`` column."""
        found = self.structured("hidden") or {}
        if not isinstance(found, Mapping):
            raise self.error("hidden", f"an object wanted, not {type(found).__name__}")
        return {k: v for k, v in self.raw.values.items() if k not in self.used} | dict(found)


def _texts(value: Any) -> Iterator[str]:
    """Every text inside lists and mappings, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for pair in value.items():
            yield from _texts(pair)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _texts(one)
