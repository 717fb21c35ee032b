"""Benchmark folders: finding their files, reading their rows, refusing what is not theirs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from rewardkit.data.row import Row
from rewardkit.data.sources import open_rows

SUFFIXES = (".jsonl.gz", ".json.gz", ".jsonl", ".json")


def files_in(folder: str | Path) -> list[tuple[str, Path]]:
    """JSON files of a folder and of those below it, each after its path without suffix (``CaseStudy/Normal/dataset``).

    Raises:
        FileNotFoundError: for a folder that is not there.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: there is no such folder; give the benchmark's own folder with --data")
    found = []
    for path in sorted(root.rglob("*")):
        suffix = next((s for s in SUFFIXES if path.name.endswith(s)), None)
        if suffix and path.is_file():
            found.append((path.relative_to(root).as_posix()[: -len(suffix)], path))
    return found


def subsets_in(
    folder: str | Path, subset_of: Callable[[str], str | None], order: Sequence[str], benchmark: str
) -> dict[str, Path]:
    """The file of each subset that the folder holds, in the benchmark's order.

    Args:
        subset_of: the subset that a path without suffix belongs to, or ``None``. order: all subsets.

    Raises:
        ValueError: where the folder holds none, or two files of one.
    """
    files: dict[str, Path] = {}
    for name, path in files_in(folder):
        subset = subset_of(name)
        if subset is None:
            continue
        if subset in files:
            raise ValueError(f"{files[subset]} and {path} both hold {subset} of {benchmark}: keep one of them")
        files[subset] = path
    if not files:
        raise ValueError(f"{folder}: holds no subset of {benchmark}; files are named {', '.join(order[:4])} ...")
    return {subset: files[subset] for subset in order if subset in files}


def rows_of(path: Path, fields: Mapping[str, type]) -> Iterator[Row]:
    """Rows of a JSON list or of JSON lines, with their fields checked.

    Raises:
        DataError: naming file, line and field.
    """
    for raw in open_rows(path):
        if raw.error is not None:
            raise raw.error
        row = Row(raw)
        for name, kind in fields.items():
            if not isinstance(raw.values.get(name), kind):
                raise row.error(name, f"missing, or of another type than {kind.__name__}")
        yield row
