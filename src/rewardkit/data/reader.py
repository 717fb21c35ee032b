"""Reading feedback: one call for every format and schema; an iterable that streams and reports.

Rules beyond those of :mod:`rewardkit.data.sources` and :mod:`rewardkit.data.schema`, each counted in the report:

* "identical": all outputs of a comparison are the same; skipped unless ``keep_identical``, which makes it a tie. A tie
  that was judged (equal ranks or scores of different outputs) is always kept.
* "duplicate": the same prompt, outputs, judgement, annotator, aspect and time once more (for samples: prompt, output
  and hidden); skipped unless ``keep_duplicates``. A digest of each row is remembered, two of a pair: some 80 bytes
  each.
* "contradiction": the same two outputs judged the other way round before; kept: noise is data.
* "empty": an output without a visible character; kept. "all empty": every output of a row is; skipped.
* "too long": an output of more than ``max_chars`` characters. ``too_long="cut"`` keeps the first ``max_chars``, marks
  the sample as ``cut`` and counts it; ``"skip"`` leaves the row out; ``"raise"`` is an error. No limit by default.
* ``on_error="skip"`` leaves out and counts every row that would be an error; a truncated file ends early, counted.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, cast

from rewardkit.data.dialogue import ASSISTANT, characters, cut
from rewardkit.data.errors import DataError, ReadReport
from rewardkit.data.row import Row
from rewardkit.data.schema import JUDGEMENTS, SAMPLES, Converter, Item, detect
from rewardkit.data.sources import RawRow, open_rows
from rewardkit.types import Judgement, Sample

Kind = TypeVar("Kind", bound="Judgement | Sample")


class Reader(Generic[Kind]):
    """An iterable over a source. Each pass reads afresh and sets :attr:`report`. Made by :func:`read`."""

    def __init__(
        self,
        name: str | Path,
        *,
        want: Literal["any", "judgements", "samples", "prompts"] = "any",
        schema: str | None = None,
        columns: Mapping[str, str | None] | None = None,
        split: str | None = None,
        on_error: Literal["raise", "skip"] = "raise",
        limit: int | None = None,
        as_messages: bool = False,
        marker: str = ASSISTANT,
        max_chars: int | None = None,
        too_long: Literal["cut", "skip", "raise"] = "cut",
        keep_identical: bool = False,
        keep_duplicates: bool = False,
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is 'raise' or 'skip', not {on_error!r}")
        if too_long not in ("cut", "skip", "raise"):
            raise ValueError(f"too_long is 'cut', 'skip' or 'raise', not {too_long!r}")
        if max_chars is not None and max_chars < 1:
            raise ValueError(f"max_chars must be at least 1, not {max_chars}")
        if schema is not None and schema not in JUDGEMENTS + SAMPLES:
            raise ValueError(f"there is no schema {schema!r}; there are {', '.join(JUDGEMENTS + SAMPLES)}")
        self.name, self.split, self.columns = str(name), split, dict(columns or {})
        self.want, self.on_error, self.limit = want, on_error, limit
        self.as_messages, self.marker, self.max_chars, self.too_long = as_messages, marker, max_chars, too_long
        self.keep_identical, self.keep_duplicates = keep_identical, keep_duplicates
        self.report = ReadReport()
        self._schema = schema
        open_rows(self.name, self.split)  # a missing file is said now, not at the first row

    @property
    def schema(self) -> str | None:
        """Name of the schema, by the first good row; ``None`` where there is none."""
        if self._schema is None:
            for raw in open_rows(self.name, self.split):
                if raw.error is None:
                    self._schema = self._detect(raw)
                    break
        return self._schema

    def _detect(self, raw: RawRow) -> str:
        missing = [m for m in self.columns.values() if m is not None and m not in raw.values]
        if missing:
            mend = f"the columns are {', '.join(sorted(raw.values))}"
            raise DataError("the mapped column is missing", path=raw.path, line=raw.line, field=missing[0], mend=mend)
        schema = self._schema or detect(Row(raw, self.columns))
        if self.want == "prompts" and schema == "text":
            mend = "give a file with a prompt column, or columns={'prompt': 'text'}"
            raise DataError("documents have no prompts", path=raw.path, line=raw.line, field="text", mend=mend)
        if self.want == "judgements" and schema in SAMPLES:
            mend = "a judgement has chosen and rejected, completions and ranks, or completion and score or label"
            raise DataError(f"these rows ({schema}) judge nothing", path=raw.path, line=raw.line, mend=mend)
        return schema

    def __iter__(self) -> Iterator[Kind]:
        self.report = report = ReadReport()
        convert: Converter | None = None
        seen: set[bytes] = set()
        for raw in open_rows(self.name, self.split):
            if self.limit is not None and report.kept >= self.limit:
                return
            report.rows += 1
            try:
                if raw.error is not None:
                    raise raw.error
                if convert is None:
                    self._schema = self._detect(raw)
                    convert = Converter(
                        self._schema, as_messages=self.as_messages, marker=self.marker, note=report.note
                    )
                item = self._checked(self._told(convert(Row(raw, self.columns))), raw, seen)
            except DataError as e:
                if self.on_error == "raise" and not (e.rule == "too long" and self.too_long == "skip"):
                    raise
                report.skip(e.rule, str(e))
                continue
            for found in self._wanted(item):
                if self.limit is not None and report.kept >= self.limit:  # joint winners are several
                    return
                report.kept += 1
                yield cast(Kind, found)

    def _told(self, item: Item) -> Item:
        """The prompt alone where only prompts are wanted: no rule on outputs applies then."""
        if self.want != "prompts":
            return item
        return replace(item.items[0] if isinstance(item, Judgement) else item, output=None, ended="done")

    def _checked(self, item: Item, raw: RawRow, seen: set[bytes]) -> Item | None:
        """The item after the rules on length, emptiness and repetition; ``None`` where a rule leaves it out."""
        report, place = self.report, f"{raw.path}:{raw.line}"
        item = self._shortened(item, raw)
        samples = item.items if isinstance(item, Judgement) else (item,)
        outputs = [s.output for s in samples if s.output is not None]
        empty = [_is_empty(o) for o in outputs]
        if outputs and all(empty):
            report.skip("all empty", place)
            return None
        if any(empty):
            report.note("empty", place)
        if isinstance(item, Judgement):
            if len(outputs) > 1 and all(o == outputs[0] for o in outputs):
                if not self.keep_identical:
                    report.skip("identical", place)
                    return None
                item = replace(item, rank=(0,) * len(outputs), p=None, rating=None)
            if item.tied:
                report.note("tie", place)
        return self._fresh(item, place, seen)

    def _fresh(self, item: Item, place: str, seen: set[bytes]) -> Item | None:
        if self.keep_duplicates:
            return item
        key = _digest(_content(item))
        if key in seen:
            self.report.skip("duplicate", place)
            return None
        seen.add(key)
        if isinstance(item, Judgement) and item.rank in ((0, 1), (1, 0)):
            better, worse = (_plain(s) for s in _in_order(item))
            if _digest(["pair", worse, better]) in seen:
                self.report.note("contradiction", place)
            seen.add(_digest(["pair", better, worse]))
        return item

    def _shortened(self, item: Item, raw: RawRow) -> Item:
        limit = self.max_chars
        samples = item.items if isinstance(item, Judgement) else (item,)
        if limit is None or all(characters(s.output) <= limit for s in samples):
            return item
        longest = max(characters(s.output) for s in samples)
        if self.too_long != "cut":
            what = f"an output of {longest} characters is longer than max_chars={limit}"
            error = DataError(what, path=raw.path, line=raw.line, mend="raise max_chars, or cut", rule="too long")
            raise error
        self.report.note("too long, cut", f"{raw.path}:{raw.line}")
        cuts = tuple(
            replace(s, output=cut(s.output, limit), ended="cut") if characters(s.output) > limit else s for s in samples
        )
        return replace(item, items=cuts) if isinstance(item, Judgement) else cuts[0]

    def _wanted(self, item: Item | None) -> tuple[Item, ...]:
        if item is None:
            return ()
        return best(item) if self.want == "samples" and isinstance(item, Judgement) else (item,)


def best(judgement: Judgement) -> tuple[Sample, ...]:
    """The samples that were judged best: rank 0, the highest p or rating; of one alone, unless it got a thumb down.

    >>> [s.output for s in best(Judgement((Sample("p", "a"), Sample("p", "b")), rank=(1, 0)))]
    ['b']
    """
    values = judgement.rating or judgement.p or tuple(-r for r in judgement.rank or ())
    if len(judgement.items) == 1:
        return () if judgement.rating == (0.0,) else judgement.items
    if not values:
        return ()
    return tuple(s for s, v in zip(judgement.items, values, strict=True) if v == max(values))


def _is_empty(output: Any) -> bool:
    """A text without a visible character, or messages that hold nothing else."""
    if isinstance(output, list):
        return all(set(m) <= {"role", "content"} and _is_empty(m["content"]) for m in output)
    return isinstance(output, str) and not output.strip()


def _digest(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _plain(sample: Sample) -> list[Any]:
    return [sample.prompt, sample.output]


def _in_order(judgement: Judgement) -> tuple[Sample, ...]:
    """The items of a pair, the better one first, so that a pair written the other way round is the same."""
    return judgement.items[::-1] if judgement.rank == (1, 0) else judgement.items


def _content(item: Item) -> list[Any]:
    if isinstance(item, Sample):
        return [*_plain(item), dict(item.hidden)]
    about = [item.aspect, item.annotator, item.at, item.strength, item.note, item.spans]
    rank = (0, 1) if item.rank == (1, 0) else item.rank
    return [[_plain(s) for s in _in_order(item)], rank, item.p, item.rating, about]


def read(name: str | Path, **options: Any) -> Reader[Judgement | Sample]:
    """Judgements or samples from JSONL, JSON, CSV (each also .gz), Parquet or a Hugging Face data set.

    Args:
        name: a file, a folder, or a hub name: ``org/name``, ``org/name:config``, with ``@split``.
        schema: a name of :mod:`rewardkit.data.schema`; default: detected by the columns of the first row.
        columns: canonical column -> the file's own name; ``None`` for a column that means something else there.
        split: as ``@split``. on_error: ``raise`` or ``skip`` (counted). limit: at most so many items.
        as_messages: transcripts and plain prompts as chat messages. marker: end of the prompt that transcripts share.
        max_chars, too_long, keep_identical, keep_duplicates: see the module.

    Raises:
        DataError: while iterating, naming file, line, field and mend.

    >>> import json, pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "pairs.jsonl"
    >>> _ = path.write_text(json.dumps({"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}) + "\\n")
    >>> reader = read(path)
    >>> [j.items[0].output for j in reader], reader.schema, reader.report.kept
    (['4'], 'preference', 1)
    """
    return Reader(name, **options)


def read_judgements(name: str | Path, **options: Any) -> Reader[Judgement]:
    """Judgements only; a source that judges nothing is an error. Options: :func:`read`."""
    return Reader(name, want="judgements", **options)


def read_samples(name: str | Path, **options: Any) -> Reader[Sample]:
    """Samples to imitate: of samples all, of judgements those judged :func:`best`. Options: :func:`read`."""
    return Reader(name, want="samples", **options)


def read_prompts(name: str | Path, **options: Any) -> Reader[Sample]:
    """Prompts of any schema, as samples without output, each once unless ``keep_duplicates``. Options: :func:`read`."""
    return Reader(name, want="prompts", **options)
