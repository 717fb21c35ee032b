"""Writing judgements and samples in the standard columns, without loss: what is read back equals what was written.

The narrowest schema that holds every item is taken: ``preference``, ``label``, ``rating``, ``ranked``, else ``items``,
for judgements; ``completion``, ``prompt`` or ``text`` for samples. Columns that say nothing are left out; ``hidden``
keeps a column of its own (JSON text in Parquet). Items of text and messages with JSON values inside can be
written: anything else is an error, and the file is not touched.

A file is written beside its place and renamed into it: a crash leaves the old one.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from rewardkit.data.dialogue import ASSISTANT
from rewardkit.data.errors import DataError
from rewardkit.data.row import Row
from rewardkit.data.schema import Converter, Item
from rewardkit.data.sources import RawRow
from rewardkit.data.whole import whole
from rewardkit.types import Judgement, Sample

_ABOUT = ("strength", "aspect", "annotator", "at", "note")


def write_judgements(path: str | Path, judgements: Iterable[Judgement], *, schema: str | None = None) -> str:
    """Write judgements to ``.jsonl``, ``.jsonl.gz`` or ``.parquet``; returns the schema.

    Args:
        schema: one of the schemas of judgements; lines are then written as a stream. Default: the narrowest that fits
            all, for which all are held in memory.

    Raises:
        DataError: for a judgement that the schema cannot hold, by its number.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "pairs.jsonl"
    >>> write_judgements(path, [Judgement((Sample("2 + 2?", "4"), Sample("2 + 2?", "5")), rank=(0, 1))])
    'preference'
    >>> path.read_text()
    '{"prompt": "2 + 2?", "chosen": "4", "rejected": "5"}\\n'
    """
    return _write(Path(path), judgements, _JUDGEMENT_ROWS, schema)


def write_samples(path: str | Path, samples: Iterable[Sample], *, schema: str | None = None) -> str:
    """Write samples to ``.jsonl``, ``.jsonl.gz`` or ``.parquet``; returns the schema.

    Args:
        schema: ``completion``, ``prompt`` or ``text``; lines are then written as a stream. Default: the narrowest that
            fits all, for which all are held in memory.

    Raises:
        DataError: for a sample that the schema cannot hold, by its number.
    """
    return _write(Path(path), samples, _SAMPLE_ROWS, schema)


def _shared(sample: Sample) -> dict[str, Any]:
    """The columns that all items of a row share."""
    row: dict[str, Any] = {"prompt": sample.prompt}
    if sample.source is not None:
        row["source"] = sample.source
    if sample.ended != "done":
        row["ended"] = sample.ended
    if sample.hidden:
        row["hidden"] = dict(sample.hidden)
    return row


def _about(judgement: Judgement) -> dict[str, Any]:
    row = {name: getattr(judgement, name) for name in _ABOUT if getattr(judgement, name) is not None}
    if judgement.weight != 1.0:
        row["weight"] = judgement.weight
    if judgement.spans:
        row["spans"] = [list(s) for s in judgement.spans]
    return row


def _preference(judgement: Judgement) -> dict[str, Any]:
    chosen, rejected = judgement.items
    row = _shared(chosen)
    return {
        "prompt": row.pop("prompt"),
        "chosen": chosen.output,
        "rejected": rejected.output,
        **row,
        **_about(judgement),
    }


def _one(column: str) -> Callable[[Judgement], dict[str, Any]]:
    def row(judgement: Judgement) -> dict[str, Any]:
        (sample,), (grade,) = judgement.items, judgement.rating or ()
        value = bool(grade) if column == "label" else grade
        shared = _shared(sample)
        return {
            "prompt": shared.pop("prompt"),
            "completion": sample.output,
            column: value,
            **shared,
            **_about(judgement),
        }

    return row


def _ranked(judgement: Judgement) -> dict[str, Any]:
    row = {**_shared(judgement.items[0]), "completions": [s.output for s in judgement.items], **_about(judgement)}
    for column, values in (("ranks", judgement.rank), ("scores", judgement.rating), ("p", judgement.p)):
        if values is not None:
            row[column] = list(values)
    return row


def _items(judgement: Judgement) -> dict[str, Any]:
    items = [_shared(s) | ({} if s.output is None else {"output": s.output}) for s in judgement.items]
    row = {"items": items, **_about(judgement)}
    for column in ("rank", "rating", "p"):
        values = getattr(judgement, column)
        if values is not None:
            row[column] = list(values)
    return row


def _completion(sample: Sample) -> dict[str, Any]:
    row = _shared(sample)
    return {"prompt": row.pop("prompt"), "completion": sample.output, **row}


def _text(sample: Sample) -> dict[str, Any]:
    row = _shared(sample)
    row.pop("prompt")
    return {"text": sample.output, **row}


_JUDGEMENT_ROWS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "preference": _preference,
    "label": _one("label"),
    "rating": _one("score"),
    "ranked": _ranked,
    "items": _items,
}
_SAMPLE_ROWS: dict[str, Callable[[Any], dict[str, Any]]] = {"text": _text, "prompt": _shared, "completion": _completion}


def _row(
    path: Path, number: int, item: Item, schema: str, make: Callable[[Any], dict[str, Any]]
) -> dict[str, Any] | None:
    """The row of an item, or ``None`` where this schema would not give the item back.

    Raises:
        DataError: for values that JSON does not know.
    """
    try:
        row = make(item)
    except ValueError:  # another number of items
        return None
    try:
        again = json.loads(json.dumps(row, allow_nan=False))
    except (TypeError, ValueError) as e:
        mend = "only text, messages and JSON values can be written"
        raise DataError(str(e), path=str(path), line=number, mend=mend) from e
    try:
        back = Converter(schema, as_messages=False, marker=ASSISTANT)(Row(RawRow("", 0, again)))
    except DataError:
        return None
    return row if back == item else None


def _write(
    path: Path, items: Iterable[Item], makers: dict[str, Callable[[Any], dict[str, Any]]], schema: str | None
) -> str:
    name = path.name.lower()
    if not name.endswith((".jsonl", ".jsonl.gz", ".parquet")):
        raise DataError("unknown kind of file", path=str(path), mend="write .jsonl, .jsonl.gz or .parquet")
    if schema is not None and schema not in makers:
        raise ValueError(f"these items have no schema {schema!r}; there are {', '.join(makers)}")
    if schema is None:
        items = list(items)
        fits = (s for s in makers if all(_row(path, n, i, s, makers[s]) for n, i in enumerate(items, 1)))
        schema = next(fits, list(makers)[-1])
    rows = _rows(path, items, schema, makers)
    with whole(path) as temporary:
        if name.endswith(".parquet"):
            _write_parquet(temporary, path, list(rows))
        else:
            with temporary.open("wb") as raw:
                _write_lines(raw, rows, packed=name.endswith(".gz"))
    return schema


def _rows(
    path: Path, items: Iterable[Item], schema: str, makers: dict[str, Callable[[Any], dict[str, Any]]]
) -> Iterator[dict[str, Any]]:
    for number, item in enumerate(items, start=1):
        row = _row(path, number, item, schema, makers[schema])
        if row is None:
            what = f"this item would not be read back as it is under the schema {schema!r}"
            mend = "tuples become lists, keys become text; prompt and output are both text or both messages"
            raise DataError(what, path=str(path), line=number, mend=mend)
        yield row


def _write_lines(raw: Any, rows: Iterable[dict[str, Any]], *, packed: bool) -> None:
    stream = gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") if packed else raw
    for row in rows:
        stream.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    if packed:
        stream.close()


def _write_parquet(temporary: Path, path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def flat(row: dict[str, Any]) -> dict[str, Any]:
        return row | {k: json.dumps(row[k], ensure_ascii=False) for k in ("hidden", "spans", "items") if k in row}

    names = list(dict.fromkeys(k for row in rows for k in row))
    try:
        columns = {name: [flat(row).get(name) for row in rows] for name in names}
        pq.write_table(pa.table(columns), temporary)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as e:
        mend = "a Parquet column holds one type: write .jsonl instead"
        raise DataError(f"these rows do not fit a table: {e}", path=str(path), mend=mend, rule="mixed types") from e
