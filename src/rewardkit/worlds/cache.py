"""The user's cache of what worlds train once: one folder a fingerprint, written whole or not at all.

The cache lies in ``$REWARDKIT_CACHE``, or in the platform's cache folder (``~/.cache/rewardkit`` on Linux,
``~/Library/Caches/rewardkit`` on macOS, ``%LOCALAPPDATA%\\rewardkit`` on Windows).
"""

from __future__ import annotations

import ast
import functools
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rewardkit

PACKAGE = Path(rewardkit.__file__).parent
RECORD = "fingerprint.json"
"""Written into every cached folder: what it was built from."""


def root() -> Path:
    """Where the cache lies; the folder need not exist yet."""
    chosen = os.environ.get("REWARDKIT_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "rewardkit"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "rewardkit"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rewardkit"


def fingerprint(facts: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that change with any of ``facts``, which must be JSON.

    >>> fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1})
    True
    >>> fingerprint({"a": 1}) == fingerprint({"a": 2})
    False
    """
    text = json.dumps(facts, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def digest(*paths: Path) -> str:
    """A fingerprint of the contents of files, for facts that depend on code or data."""
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()[:16]


def versions() -> dict[str, str]:
    """Versions of rewardkit and of the libraries that numbers depend on."""
    import torch
    import transformers

    return {
        "rewardkit": rewardkit.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def made_by(file: Path, *data: Path) -> dict[str, str]:
    """Facts for whatever the code of ``file`` makes: the versions, and ``source``, a digest of all code behind it.

    Args:
        file: its source, digested with everything of rewardkit that it imports. data: further files that it reads.
    """
    return {**versions(), "source": digest(*sources(file), *data)}


def sources(file: Path) -> set[Path]:
    """A source file and every file of rewardkit that it imports, whether directly or through others."""
    found, waiting = set(), [file]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += _imports(one)
    return found


@functools.cache
def _imports(file: Path) -> tuple[Path, ...]:
    """Files of rewardkit that a file imports, at any depth of its code."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
    files = []
    for name in sorted(names):
        if name.partition(".")[0] == "rewardkit":
            stem = PACKAGE.joinpath(*name.split(".")[1:])
            files += [f for f in (stem.with_suffix(".py"), stem / "__init__.py") if f.exists()]
    return tuple(files)


@contextmanager
def locked(path: Path, *, patience: float = 3600.0) -> Iterator[None]:
    """Hold the lock file ``path``: one process at a time, freed by the system when its holder dies.

    Raises:
        TimeoutError: if another process holds it for longer than ``patience`` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as handle:
        deadline = time.monotonic() + patience
        while not _try_lock(handle):
            if time.monotonic() > deadline:
                raise TimeoutError(f"another process has held {path} for {patience:.0f} seconds")
            time.sleep(0.1)
        try:
            yield
        finally:
            _unlock(handle)


def _try_lock(handle: Any) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            handle.seek(0)
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _unlock(handle: Any) -> None:
    if sys.platform == "win32":
        import msvcrt

        handle.seek(0)
        msvcrt.locking(handle.fileno(), msvcrt.LK_UNLCK, 1)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_UN)


def find(name: str, facts: Mapping[str, Any]) -> Path | None:
    """The cached folder of ``name`` built from these facts, if there is one."""
    folder = root() / name / fingerprint(facts)
    return folder if (folder / RECORD).is_file() else None


def cached(name: str, facts: Mapping[str, Any], make: Callable[[Path], None], *, force: bool = False) -> Path:
    """The folder of ``name`` built from ``facts``; where there is none, ``make(folder)`` fills a new one.

    ``make`` writes to a temporary folder that is renamed when it is complete: a build that dies leaves nothing that
    looks finished. Two processes that ask at once build once.

    Args:
        name: kind of thing, a path below the cache's root. facts: everything the result depends on, as JSON.
        make: fills the folder it is given. force: build anew even where there is one.
    """
    folder = root() / name / fingerprint(facts)
    if not force and find(name, facts):
        return folder
    with locked(folder.with_name(folder.name + ".lock")):
        if not force and find(name, facts):
            return folder
        draft = Path(tempfile.mkdtemp(prefix=folder.name + ".", suffix=".part", dir=folder.parent))
        try:
            make(draft)
            (draft / RECORD).write_text(json.dumps(dict(facts), indent=2, sort_keys=True) + "\n", encoding="utf-8")
            if folder.exists():
                shutil.rmtree(folder)
            os.replace(draft, folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return folder
