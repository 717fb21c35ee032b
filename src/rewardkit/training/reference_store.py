"""Log-probs of a reference on disk, each row under what it was computed of: weights, precision, temperature, ids."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from rewardkit.registry import entry
from rewardkit.types import Rollout

FORMAT = 1
"""To be raised when log-probs of the same weights and ids come to be computed otherwise."""
APPLICATION = 0x52574B4C
"""SQLite's ``application_id`` of these files."""
SUFFIX = ".reference.sqlite"
PATIENCE = 60.0
"""Seconds to wait for another process that is writing."""
ASKED = 500
"""Keys of one query."""

_FINGERPRINT = re.compile("[0-9a-f]{16,}")
_IDS = {"prompt_ids", "output_ids"}
_PLACES = ("_name_or_path", "transformers_version", "base_model_name_or_path", "revision")


def store_file(data: str | Path | None, out: Path) -> Path:
    """The file for the log-probs of fixed data: ``DATA.reference.sqlite`` beside a local file or folder.

    Where there is none, or nothing can be written beside it, it is ``reference.sqlite`` in the folder ``out``.
    """
    if data is not None and Path(data).exists():
        beside = Path(data).resolve()
        beside = beside.with_name(beside.name + SUFFIX)
        if os.access(beside if beside.exists() else beside.parent, os.W_OK):
            return beside
    return out / SUFFIX.lstrip(".")


@entry("training:reference_store", aliases=("ReferenceStore",), tags=("needs-reference", "offline"))
class ReferenceStore:
    """Log-probs of frozen weights on fixed data: computed once, read in every epoch, resumed run and later run.

    An SQLite file. A row is found by the version of the weights, the model's config, kind of device, precision,
    temperature, prompt ids, output ids and images; so nothing that was computed by other weights is ever read. Any
    number of processes of one machine share a file; one that is killed leaves it whole.

    Args:
        path: the file; it and its folder are made if absent.

    Raises:
        ValueError: for a file that is something else or damaged, or that cannot be written.

    >>> import tempfile
    >>> with ReferenceStore(Path(tempfile.mkdtemp()) / "pairs.reference.sqlite") as store:
    ...     store.write({b"key": torch.tensor([-0.5, -1.0])})
    ...     store.read([b"key", b"another"])
    {b'key': tensor([-0.5000, -1.0000])}
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.found = self.computed = 0
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._named():
            self._base = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)
            try:
                self._claim()
            except BaseException:
                self._base.close()
                raise

    def _claim(self) -> None:
        """Make the table in a new file, see that an old one is ours."""
        with self._writing():
            kind, version = self._one("PRAGMA application_id"), self._one("PRAGMA user_version")
            if kind == version == self._one("SELECT count(*) FROM sqlite_master") == 0:
                self._base.execute(f"PRAGMA application_id = {APPLICATION}")
                self._base.execute(f"PRAGMA user_version = {FORMAT}")
                self._base.execute("CREATE TABLE logps (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")
            elif (kind, version) != (APPLICATION, FORMAT):
                raise sqlite3.DatabaseError("made by another version" if kind == APPLICATION else "another program's")
        # One that was cut off would pass for one that knows little.
        if (state := self._one("PRAGMA quick_check(1)")) != "ok":
            raise sqlite3.DatabaseError(" ".join(state.split()))
        # Readers do not wait for a writer then. Where another process is just saying it, that will do.
        with suppress(sqlite3.OperationalError):
            self._base.execute("PRAGMA journal_mode = WAL")
        self._base.execute("PRAGMA synchronous = NORMAL")

    def _one(self, asked: str) -> Any:
        return self._base.execute(asked).fetchone()[0]

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """All that is written inside, or nothing."""
        self._base.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._base.execute("ROLLBACK")
            raise
        self._base.execute("COMMIT")

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise ValueError(
                f"{self.path}: {error}: reference log-probs cannot be kept there; name another file, or keep none"
            ) from error
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"{self.path}: {error}: this is no file of reference log-probs of this version, or it is damaged; "
                "remove it, and they are computed anew"
            ) from error

    def read(self, keys: Sequence[bytes]) -> dict[bytes, Tensor]:
        """What is stored of ``keys``: float32, one number an output token."""
        wanted, found = list(dict.fromkeys(keys)), {}
        with self._named():
            for at in range(0, len(wanted), ASKED):
                some = wanted[at : at + ASKED]
                marks = ",".join("?" * len(some))
                for key, value in self._base.execute(f"SELECT key, value FROM logps WHERE key IN ({marks})", some):
                    if len(value) % 4:
                        raise sqlite3.DatabaseError("a row is damaged")
                    found[key] = torch.from_numpy(np.frombuffer(value, "<f4").copy())
        return found

    def write(self, rows: Mapping[bytes, Tensor]) -> None:
        """Keep these rows; what another process has kept in the meantime stays."""
        values = [(key, row.numpy().astype("<f4").tobytes()) for key, row in rows.items()]
        with self._named(), self._writing():
            self._base.executemany("INSERT OR IGNORE INTO logps VALUES (?, ?)", values)

    def logps(self, rollout: Rollout, policy: Any, precision: str, compute: Callable[[Rollout], Tensor]) -> Tensor:
        """Log-probs of every row, float32 ``[B, T]``; those that are not stored are computed, equal rows once.

        Args:
            rollout: with ragged ids. policy: whose log-probs, frozen. precision: of the forward pass.
            compute: the log-probs of a rollout of some of the rows, ``[b, T]``.

        Raises:
            ValueError: see :func:`row_keys`.
        """
        keys, sizes = row_keys(rollout, policy, precision), [len(ids) for ids in rollout.inputs["output_ids"]]
        known = self.read(keys)
        if any(len(known[key]) != size for key, size in zip(keys, sizes, strict=True) if key in known):
            with self._named():
                raise sqlite3.DatabaseError("a row is damaged")
        first = {key: row for row, key in reversed(list(enumerate(keys))) if key not in known}
        rows = sorted(first.values())
        if rows:
            logps_bT = compute(rollout if len(rows) == len(rollout) else rollout.select(rows)).float().cpu()
            fresh = {keys[row]: logps_bT[i, : sizes[row]] for i, row in enumerate(rows)}
            # What is not finite is nothing to rely on ever after.
            self.write({key: value for key, value in fresh.items() if bool(torch.isfinite(value).all())})
            known |= fresh
        self.found, self.computed = self.found + len(keys) - len(rows), self.computed + len(rows)
        whole_BT = torch.zeros(rollout.mask.shape)
        for row, key in enumerate(keys):
            whole_BT[row, : sizes[row]] = known[key]
        return whole_BT.to(rollout.mask.device)

    def close(self) -> None:
        """Let go of the file."""
        self._base.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def row_keys(rollout: Rollout, policy: Any, precision: str) -> list[bytes]:
    """What each row's log-probs are found by, 20 bytes a row.

    Raises:
        ValueError: for a rollout that is not of ragged ids alone, or a policy whose version is no fingerprint of its
            weights: neither would be known again in another process.
    """
    inputs = rollout.inputs
    if not _IDS <= set(inputs) <= _IDS | {"media"}:
        raise ValueError(
            f"only rows of token ids (prompt_ids, output_ids) are stored, and these have {sorted(inputs)}: attach "
            "their reference log-probs without a store"
        )
    about, keys = _about(rollout, policy, precision), []
    shown = inputs.get("media", [{}] * len(rollout))
    for prompt, output, media in zip(inputs["prompt_ids"], inputs["output_ids"], shown, strict=True):
        key = hashlib.blake2b(about, digest_size=20)
        key.update(array("q", [len(prompt), len(output), *prompt, *output]).tobytes())
        for name, tensor in sorted(media.items()):
            key.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
            key.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        keys.append(key.digest())
    return keys


def _about(rollout: Rollout, policy: Any, precision: str) -> bytes:
    """What all rows have in common, digested."""
    version, module = str(policy.version), policy.module
    if not _FINGERPRINT.fullmatch(version):
        raise ValueError(
            f"a store needs a policy whose version is a fingerprint of its weights, as a LanguagePolicy's is, and "
            f"{type(policy).__name__}'s is {version!r}: attach its log-probs without a store"
        )
    how = {k: v for k, v in rollout.how.items() if k != "drawn"}
    how["temperature"] = float(how.get("temperature", 1.0))
    # Equal weights compute something else under another config: heads, windows, the scale of an adapter.
    adapters = {} if getattr(policy, "view", None) == "adapter_off" else getattr(module, "peft_config", {})
    configs = [_plain(c) for c in (getattr(module, "config", None), *(adapters[n] for n in sorted(adapters)))]
    device = next(module.parameters()).device.type
    said = json.dumps([FORMAT, version, precision, device, how, configs], sort_keys=True, default=_text)
    return hashlib.blake2b(said.encode(), digest_size=20).digest()


def _plain(config: Any) -> dict[str, Any]:
    """A config of transformers or PEFT, without what says where it came from."""
    made = config.to_dict() if hasattr(config, "to_dict") else {}
    return {k: v for k, v in made.items() if k not in _PLACES}


def _text(value: Any) -> Any:
    """What JSON does not know, the same in every process."""
    return sorted(map(str, value)) if isinstance(value, (set, frozenset)) else str(value)
