"""Raw rows: JSON lines, JSON arrays, CSV, Parquet, Hugging Face data sets, each as a stream in bounded memory.

A source yields :class:`RawRow` s. A row that could not be read carries the error instead of values, so that the caller
chooses between stopping and counting. Rules:

* Text is UTF-8. A byte-order mark at the start is dropped; ``\\r\\n`` ends a line as ``\\n`` does; blank lines are
  passed over; an empty file has no rows.
* gzip is recognised by its first bytes, whatever the name. A file that ends too early hands out every complete line,
  then an error that names the last good one.
* A ``.json`` file may be lines or one array of objects.
* Memory: a line, an object of an array, or a row group of a Parquet file at a time; a hub data set is streamed.
* A folder is a data set that was saved to disk by ``datasets``, or a tree of data files read in order of their names.
* Where there are several splits (``name@split`` chooses), ``train`` is read. A file's split is named by a word of its
  own name, else of the nearest folder's: ``train/part-0.jsonl``, ``hh-test.jsonl``.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from rewardkit.data.errors import DataError

SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz", ".ndjson", ".ndjson.gz", ".parquet", ".csv", ".csv.gz")
_CHUNK = 1 << 16
_LARGEST_OBJECT = 1 << 26
_HUB = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?(@[\w.-]+)?")


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row: where it stands, and its values or the error that stands for them."""

    path: str
    line: int
    values: dict[str, Any]
    error: DataError | None = None


def open_rows(name: str | Path, split: str | None = None) -> Iterator[RawRow]:
    """Rows of a file, a folder or a hub data set.

    Args:
        name: a path, or ``org/name``, ``org/name:config``, ``org/name@split``; ``folder@split`` too.
        split: the same as ``@split``.

    Raises:
        DataError: where there is no such file or data set.
    """
    text = str(name)
    if not Path(text).exists() and "@" in text:
        text, _, split = text.rpartition("@")
    path = Path(text)
    if path.is_dir():
        return _folder(path, split)
    if path.is_file():
        return _file(path)
    if _HUB.fullmatch(text) and not text.endswith(SUFFIXES):
        return _hub(text, split)
    raise DataError("no such file or folder", path=text, mend="give a path, or a hub name such as org/name")


def _file(path: Path) -> Iterator[RawRow]:
    name = path.name.lower()
    if name.endswith(".parquet"):
        return _parquet(path)
    if name.endswith((".csv", ".csv.gz")):
        return _csv(path)
    if name.endswith((".json", ".json.gz")):
        return _json(path)
    if name.endswith(SUFFIXES):
        return _lines(path)
    raise DataError("unknown kind of file", path=str(path), mend=f"readers know {', '.join(SUFFIXES)}")


def _open(path: Path) -> io.BufferedReader:
    with path.open("rb") as probe:
        packed = probe.read(2) == b"\x1f\x8b"
    return cast(io.BufferedReader, gzip.open(path, "rb")) if packed else path.open("rb")


def _cut_off(path: Path, last: int, error: Exception) -> RawRow:
    problem = DataError(
        f"the compressed file is cut off or damaged: the last good line is {last} ({error})",
        path=str(path),
        line=last + 1,
        mend="fetch the file again; the lines before this one were read",
        rule="truncated file",
    )
    return RawRow(str(path), last + 1, {}, problem)


_BROKEN = (EOFError, gzip.BadGzipFile, zlib.error)


def _lines(path: Path) -> Iterator[RawRow]:
    with _open(path) as stream:
        number, offset = 0, 0
        while True:
            try:
                line = stream.readline()
            except _BROKEN as e:
                yield _cut_off(path, number, e)
                return
            if not line:
                return
            number += 1
            row = _parse(path, number, offset, line)
            if row is not None:
                yield row
            offset += len(line)


def _parse(path: Path, number: int, offset: int, line: bytes) -> RawRow | None:
    """One JSON line; ``None`` for a blank one."""

    def failed(what: str, mend: str, rule: str) -> RawRow:
        return RawRow(str(path), number, {}, DataError(what, path=str(path), line=number, mend=mend, rule=rule))

    body = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
    try:
        text = body.decode("utf-8").strip()
    except UnicodeDecodeError as e:
        at = e.start + len(line) - len(body)
        what = f"invalid UTF-8 at byte {at} of the line, byte {offset + at} of the file: {e.reason}"
        return failed(what, "save the file as UTF-8", "invalid UTF-8")
    if not text:
        return None
    try:
        values = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as e:
        last = not line.endswith(b"\n")
        mend = "the file may be cut off here" if last else "one JSON object a line"
        return failed(f"wrong JSON: {e}", mend, "wrong JSON")
    if not isinstance(values, dict):
        return failed(f"a row is a JSON object, not {type(values).__name__}", "one JSON object a line", "wrong JSON")
    return RawRow(str(path), number, values)


def _json(path: Path) -> Iterator[RawRow]:
    """A ``.json`` file: an array where the first character is ``[``, else lines."""
    with _open(path) as stream:
        try:
            start = stream.read1(_CHUNK).removeprefix(codecs.BOM_UTF8).lstrip()
        except _BROKEN as e:
            yield _cut_off(path, 0, e)
            return
    yield from _array(path) if start.startswith(b"[") else _lines(path)


def _array(path: Path) -> Iterator[RawRow]:
    """Objects of one JSON array, one at a time: the file is never held whole. A wrong element ends the reading."""
    name, line, buffer, ended = str(path), 1, "", False
    decoder = json.JSONDecoder()

    def failed(what: str, rule: str, mend: str) -> RawRow:
        return RawRow(name, line, {}, DataError(what, path=name, line=line, mend=mend, rule=rule))

    with _open(path) as stream:
        utf8, opened = codecs.getincrementaldecoder("utf-8-sig")(), False
        while True:
            rest = buffer.lstrip(", \t\r\n" if opened else None)
            line += buffer.count("\n", 0, len(buffer) - len(rest))
            buffer = rest
            if buffer and not opened:
                opened, buffer = True, buffer.removeprefix("[")
                continue
            if buffer.startswith("]"):
                return
            problem = "the array does not end"
            try:
                value, size = decoder.raw_decode(buffer)
            except RecursionError as e:
                yield failed(f"wrong JSON: {e}", "wrong JSON", "an array of objects that are not nested so deeply")
                return
            except json.JSONDecodeError as e:
                problem = str(e) if buffer else problem
            else:
                if not isinstance(value, dict):
                    yield failed(
                        f"a row is a JSON object, not {type(value).__name__}", "wrong JSON", "an array of objects"
                    )
                    return
                yield RawRow(name, line, value)
                line += buffer.count("\n", 0, size)
                buffer = buffer[size:]
                continue
            if ended or len(buffer) > _LARGEST_OBJECT:
                yield failed(f"wrong JSON: {problem}", "wrong JSON", "the file may be cut off here")
                return
            try:
                data = stream.read1(max(_CHUNK, len(buffer)))  # one read: what came before a damage is not lost
                ended, buffer = not data, buffer + utf8.decode(data, final=not data)
            except _BROKEN as e:
                yield _cut_off(path, line, e)
                return
            except UnicodeDecodeError as e:
                yield failed(f"invalid UTF-8: {e.reason}", "invalid UTF-8", "save the file as UTF-8")
                return


def _csv(path: Path) -> Iterator[RawRow]:
    """A CSV with a header line; an empty field is null."""
    name = str(path)
    # the module's own limit of 131,072 characters, which it keeps for the whole process, is a long dialogue's length
    csv.field_size_limit(max(csv.field_size_limit(), _LARGEST_OBJECT))
    with _open(path) as stream:
        table = csv.DictReader(io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""), strict=True)
        while True:
            try:
                values = next(table)
            except StopIteration:
                return
            except _BROKEN as e:
                yield _cut_off(path, table.line_num, e)
                return
            except (UnicodeDecodeError, csv.Error) as e:
                rule = "invalid UTF-8" if isinstance(e, UnicodeDecodeError) else "wrong CSV"
                error = DataError(f"{rule}: {e}", path=name, line=table.line_num + 1, mend="save as UTF-8", rule=rule)
                yield RawRow(name, table.line_num + 1, {}, error)
                return
            if None in values or None in values.values():
                what = f"this line has not the {len(table.fieldnames or ())} fields of the header"
                error = DataError(
                    what, path=name, line=table.line_num, mend="quote commas and quotes", rule="wrong CSV"
                )
                yield RawRow(name, table.line_num, {}, error)
                continue
            yield RawRow(name, table.line_num, {k: v if v != "" else None for k, v in values.items()})


def _parquet(path: Path, size: int = 64) -> Iterator[RawRow]:
    """Rows of a Parquet file, ``size`` at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    name, number = str(path), 0
    try:
        with pq.ParquetFile(path, pre_buffer=False) as table:
            for batch in table.iter_batches(batch_size=size, use_threads=False):
                for values in _decoded(batch):
                    number += 1
                    if isinstance(values, dict):
                        yield RawRow(name, number, values)
                        continue
                    what = f"invalid UTF-8: {values.reason}"
                    mend = "write the column again as UTF-8"
                    yield RawRow(
                        name, number, {}, DataError(what, path=name, line=number, mend=mend, rule="invalid UTF-8")
                    )
    except (pa.ArrowInvalid, OSError) as e:
        error = DataError(f"not a readable Parquet file: {e}", path=name, line=number + 1, rule="truncated file")
        yield RawRow(name, number + 1, {}, error)


def _decoded(batch: Any) -> Iterator[dict[str, Any] | UnicodeDecodeError]:
    """Rows of a batch; one by one where a text in it is not UTF-8."""
    try:
        yield from batch.to_pylist()
        return
    except UnicodeDecodeError:
        pass
    for row in range(batch.num_rows):
        try:
            yield batch.slice(row, 1).to_pylist()[0]
        except UnicodeDecodeError as e:
            yield e


_SPLITS = {"train": "train", "test": "test", "validation": "validation", "valid": "validation", "dev": "validation"}


def _split_of(path: Path) -> str | None:
    """The split that a path inside a data folder names, its file name first, then its folders from the innermost."""
    words = (w for part in reversed(path.parts) for w in re.split(r"[^a-z]+", part.lower()))
    return next((_SPLITS[w] for w in words if w in _SPLITS), None)


def _folder(path: Path, split: str | None) -> Iterator[RawRow]:
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        import datasets

        saved = datasets.load_from_disk(str(path))
        if isinstance(saved, datasets.DatasetDict):
            saved = saved[_choose(str(path), list(saved), split)]
        elif split is not None:
            raise DataError(f"this saved data set has no splits, so not {split!r} either", path=str(path))
        return _table(str(path), saved)
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.name.lower().endswith(SUFFIXES))
    files = [p for p in files if p.name not in ("dataset_info.json", "dataset_infos.json", "config.json")]
    if not files:
        raise DataError("no data files in this folder", path=str(path), mend=f"readers know {', '.join(SUFFIXES)}")
    splits = {p: _split_of(p.relative_to(path)) for p in files}
    named = sorted({s for s in splits.values() if s})
    if split is not None or len(named) > 1:
        chosen = _choose(str(path), named, _SPLITS.get(split or "", split))
        files = [p for p in files if splits[p] == chosen]
    return (row for p in files for row in _file(p))


def _choose(path: str, splits: list[str], split: str | None) -> str:
    """The split that was asked for; else ``train``, or the only one."""
    if split is None and ("train" in splits or len(splits) == 1):
        return "train" if "train" in splits else splits[0]
    if split in splits:
        return split
    raise DataError(
        f"there is no split {split!r}" if split else "which split?", path=path, mend=f"add @split: one of {splits}"
    )


def _hub(name: str, split: str | None) -> Iterator[RawRow]:
    """A data set of the hub, streamed."""
    import datasets

    repository, _, config = name.partition(":")
    try:
        found = datasets.load_dataset(repository, config or None, split=split, streaming=True)
    except Exception as e:
        raise DataError(
            f"not a local path, and the hub does not give it: {e}",
            path=name,
            mend="check the name, :config, @split and the network, or give a local path",
        ) from e
    if isinstance(found, dict):
        found = found[_choose(name, list(found), split)]
    yield from _table(name, found)


def _table(name: str, table: Iterable[dict[str, Any]]) -> Iterator[RawRow]:
    for number, values in enumerate(table, start=1):
        yield RawRow(name, number, dict(values))
