"""Checkpoints that a crash cannot spoil, and runs that resume to the same curve."""

from __future__ import annotations

import json
import os
import platform
import random
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from rewardkit.registry import entry

MANIFEST, STATE = "manifest.json", "state.pt"


class Stateful(Protocol):
    """What a checkpoint can hold: a learner, a source of prompts, a reward with memory."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


def rng_state() -> dict[str, Any]:
    """The state of the generators of torch (CPU and CUDA), numpy and Python, as tensors and plain numbers."""
    name, keys, position, has_gauss, gauss = cast(Any, np.random.get_state(legacy=True))  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [str(name), torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(gauss)],
        "python": random.getstate(),
    }


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Put the generators back to :func:`rng_state`."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))


@entry("training:checkpoints", aliases=("Checkpoints",), tags=("resume",))
class Checkpoints:
    """Checkpoints of a run in one folder.

    Each is a folder ``step-00000012`` that is written under another name and renamed when everything in it is on the
    disk: what carries the name is whole. Older ones are removed after that, never before. A manifest in JSON says the
    step, the metrics and the versions; weights are safetensors.

    Args:
        folder: where to; made if absent.
        every: updates between two checkpoints.
        keep: how many of the last to keep; the best is kept besides.
        best: name of the held-out metric that says which is best. A reward is not one: it is what training inflates.
        mode: whether the best is the ``max`` or the ``min``.

    >>> import tempfile
    >>> from rewardkit.policies.table import TablePolicy
    >>> from rewardkit.training.learner import Learner
    >>> learner = Learner(TablePolicy(["x"], ["a", "b"]))
    >>> checkpoints = Checkpoints(tempfile.mkdtemp())
    >>> checkpoints.save(3, {"learner": learner}).name
    'step-00000003'
    >>> checkpoints.resume_or_start({"learner": learner})["step"]
    3
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        every: int = 100,
        keep: int = 2,
        best: str | None = None,
        mode: Literal["max", "min"] = "max",
    ) -> None:
        if every < 1 or keep < 1:
            raise ValueError(f"Checkpoints: every and keep must be at least 1, not {every} and {keep}")
        if mode not in ("max", "min"):
            raise ValueError(f"Checkpoints: mode must be 'max' or 'min', not {mode!r}")
        self.folder, self.every, self.keep, self.best_metric, self.mode = Path(folder), every, keep, best, mode
        self.folder.mkdir(parents=True, exist_ok=True)

    def due(self, step: int, last: bool = False) -> bool:
        """Whether update ``step``, counted from 1, is to be saved; the last one always is."""
        return last or step % self.every == 0

    def save(
        self,
        step: int,
        parts: Mapping[str, Stateful],
        *,
        extra: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> Path:
        """Write a checkpoint; call it on the main rank alone.

        Args:
            step: updates done. parts: what has state, by name. extra: numbers, strings and tensors beside them.
            metrics: held-out figures; the one named ``best`` ranks the checkpoints.
        """
        from rewardkit import __version__

        temporary = self.folder / f".writing-{os.getpid()}-{time.monotonic_ns()}"
        temporary.mkdir()
        states = {name: part.state_dict() for name, part in parts.items()}
        rest: dict[str, Any] = {"parts": {}, "extra": dict(extra or {}), "rng": rng_state()}
        for name, state in states.items():
            weights = state.get("weights")
            if isinstance(weights, Mapping):
                whole = {k: v.detach().contiguous().cpu().clone() for k, v in weights.items()}
                save_file(whole, temporary / f"{name}.safetensors")
            rest["parts"][name] = {k: v for k, v in state.items() if not (k == "weights" and isinstance(v, Mapping))}
        torch.save(rest, temporary / STATE)
        manifest = {
            "step": step,
            "metrics": {k: float(v) for k, v in (metrics or {}).items()},
            "parts": sorted(states),
            "versions": {"rewardkit": __version__, "torch": torch.__version__, "python": platform.python_version()},
        }
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        for path in temporary.iterdir():
            _sync(path)
        _sync(temporary)
        target = self.folder / f"step-{step:08d}"
        aside = self.folder / f".replaced-{os.getpid()}-{time.monotonic_ns()}"
        if target.exists():
            os.replace(target, aside)
        os.replace(temporary, target)
        _sync(self.folder)
        shutil.rmtree(aside, ignore_errors=True)
        self._forget()
        return target

    def all(self) -> list[tuple[int, Path]]:
        """Every whole checkpoint with its step, in order. One that was moved aside when a crash came still counts."""
        found: dict[int, Path] = {}
        for path in sorted(self.folder.iterdir()):
            if path.name.startswith((".replaced-", "step-")) and (path / MANIFEST).is_file():
                found[int(self.manifest(path)["step"])] = path
        return sorted(found.items())

    def manifest(self, path: Path) -> dict[str, Any]:
        """What a checkpoint says of itself."""
        return dict(json.loads((path / MANIFEST).read_text(encoding="utf-8")))

    def latest(self) -> Path | None:
        """The last whole checkpoint, ``None`` if there is none."""
        found = self.all()
        return found[-1][1] if found else None

    def best(self) -> Path | None:
        """The checkpoint whose held-out metric is best, the earliest of equals; ``None`` if none has the metric."""
        rated = []
        for step, path in self.all():
            value = self.manifest(path)["metrics"].get(self.best_metric)
            if value is not None and value == value:
                rated.append((-value if self.mode == "max" else value, step, path))
        return min(rated)[2] if rated else None

    def load(self, path: Path, parts: Mapping[str, Stateful]) -> dict[str, Any]:
        """Put a checkpoint into ``parts``.

        Returns:
            its ``extra``, with ``step`` added.

        Raises:
            ValueError: if it holds other parts.
        """
        rest = _state(path)
        if set(rest["parts"]) != set(parts):
            raise ValueError(f"{path} holds {sorted(rest['parts'])}, this run has {sorted(parts)}: it is another run's")
        for name, part in parts.items():
            part.load_state_dict(_of_part(path, rest, name))
        set_rng_state(rest["rng"])
        return self._extra(path, rest)

    def load_best(self, name: str, part: Stateful) -> int | None:
        """Put one part of the best checkpoint into ``part``, and leave the generators alone.

        Returns:
            the checkpoint's step; ``None``, and nothing is loaded, if no checkpoint has the metric ``best``.
        """
        path = self.best()
        if path is None:
            return None
        part.load_state_dict(_of_part(path, _state(path), name))
        return int(self.manifest(path)["step"])

    def last(self) -> dict[str, Any]:
        """What the last checkpoint says beside its parts: its ``extra`` with ``step``; ``{"step": 0}`` if none is."""
        path = self.latest()
        return {"step": 0} if path is None else self._extra(path, _state(path))

    def _extra(self, path: Path, rest: Mapping[str, Any]) -> dict[str, Any]:
        return {**rest["extra"], "step": int(self.manifest(path)["step"])}

    def resume_or_start(
        self, parts: Mapping[str, Stateful], *, settings: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Load the last checkpoint into ``parts``, or leave them as they are.

        Args:
            parts: as in :meth:`save`. settings: what must not differ from the run that wrote the checkpoint, compared
                with its ``extra["settings"]``.

        Returns:
            its ``extra`` with ``step``; ``{"step": 0}`` for a fresh start.

        Raises:
            ValueError: if a setting differs, naming it: the curve would not be the same run's.
        """
        self._clean()
        path = self.latest()
        if path is None:
            return {"step": 0}
        if settings is not None:
            before = self.last().get("settings", {})
            odd = {k: (before[k], v) for k, v in settings.items() if k in before and before[k] != v}
            if odd:
                said = ", ".join(f"{k} was {a!r} and is {b!r}" for k, (a, b) in odd.items())
                raise ValueError(f"{path} is of a run with other settings ({said}): restore them or use another folder")
        return self.load(path, parts)

    def _forget(self) -> None:
        """Remove all but the last ``keep`` and the best."""
        found, best = self.all(), self.best()
        for _, path in found[: -self.keep]:
            if path != best:
                shutil.rmtree(path, ignore_errors=True)

    def _clean(self) -> None:
        """Remove what a crash left half written."""
        for path in self.folder.glob(".writing-*"):
            shutil.rmtree(path, ignore_errors=True)


def _state(path: Path) -> dict[str, Any]:
    """What stands beside the weights of a checkpoint."""
    return dict(torch.load(path / STATE, map_location="cpu", weights_only=True))


def _of_part(path: Path, rest: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The whole state of one part, weights included."""
    file = path / f"{name}.safetensors"
    return {**rest["parts"][name], **({"weights": load_file(file)} if file.is_file() else {})}


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
