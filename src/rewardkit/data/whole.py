"""Files that are written whole or not at all: a crash leaves the old one."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path``, renamed to it at the end and removed after an error; folders are made.

    >>> folder = Path(tempfile.mkdtemp())
    >>> with whole(folder / "new" / "a.txt") as draft:
    ...     _ = draft.write_text("all of it")
    >>> [p.name for p in (folder / "new").iterdir()]
    ['a.txt']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    draft = Path(name)
    try:
        yield draft
        draft.chmod(0o666 & ~_umask())
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole, in UTF-8."""
    with whole(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file whole, indented; what is not finite becomes null, as JSON knows neither NaN nor infinity."""
    write_text(path, json.dumps(nullable(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def nullable(value: Any) -> Any:
    """``value`` with ``None`` in the place of every number that is not finite, in lists and mappings at any depth.

    >>> nullable({"mean": math.nan, "n": 2, "interval": (0.5, math.inf)})
    {'mean': None, 'n': 2, 'interval': [0.5, None]}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: nullable(v) for k, v in value.items()}
    return [nullable(v) for v in value] if isinstance(value, (list, tuple)) else value


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
