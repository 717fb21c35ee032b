"""Benchmark folders: finding their files, reading their rows, refusing what is not theirs."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

SUFFIXES = (".jsonl.gz", ".json.gz", ".jsonl", ".json")


def files_in(folder: str | Path) -> dict[str, Path]:
    """JSON files of a folder and of those below it, by their path without suffix (``CaseStudy/Normal/dataset``).

    Raises:
        FileNotFoundError: for a folder that is not there.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: there is no such folder; give the benchmark's own folder with --data")
    found = {}
    for path in sorted(root.rglob("*")):
        suffix = next((s for s in SUFFIXES if path.name.endswith(s)), None)
        if suffix and path.is_file():
            found[path.relative_to(root).as_posix()[: -len(suffix)]] = path
    return found


def subsets_in(
    folder: str | Path, subset_of: Callable[[str], str | None], order: Sequence[str], benchmark: str
) -> dict[str, Path]:
    """The file of each subset that the folder holds, in the benchmark's order.

    Args:
        subset_of: the subset that a path without suffix belongs to, or ``None``. order: all subsets.

    Raises:
        ValueError: where the folder holds none.
    """
    files = {subset: path for name, path in files_in(folder).items() if (subset := subset_of(name))}
    if not files:
        raise ValueError(f"{folder}: holds no subset of {benchmark}; files are named {', '.join(order[:4])} ...")
    return {subset: files[subset] for subset in order if subset in files}


def rows_of(path: Path, fields: Mapping[str, type]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a JSON list or of JSON lines, numbered from 1, with their fields checked.

    Raises:
        ValueError: naming file, row and field.
    """
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.name.endswith(".gz") else raw).decode("utf-8")
        whole = text.lstrip()[:1] == "["
        rows = json.loads(text) if whole else [json.loads(line) for line in text.split("\n") if line.strip()]
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as JSON: {error}") from None
    for number, row in enumerate(rows, 1):
        for name, kind in fields.items():
            if not isinstance(row, dict) or not isinstance(row.get(name), kind):
                raise ValueError(f"{path}: row {number}: field {name!r} is missing or of the wrong type")
        yield number, row
