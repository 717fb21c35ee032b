"""The folder of a run: whose it is, and how its result is put there whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rewardkit.data.whole import write_json
from rewardkit.training.checkpoint import Checkpoints

OPTIONS, CHECKPOINTS = "options.json", "checkpoints"


def claim(out: Path, settings: Mapping[str, Any], *, resume: bool) -> None:
    """Take the folder for a run of these settings, or make sure that it is this run's.

    Args:
        out: the folder; made if absent. settings: what a resumed run must have in common with the first.
        resume: whether the folder may hold the beginning of this run.

    Raises:
        ValueError: if it holds another run, or a run and ``resume`` was not asked for.
    """
    kept = out / OPTIONS
    if not kept.is_file():
        write_json(kept, settings)
        return
    if not resume:
        raise ValueError(f"{out} already holds a run: add --resume to go on with it, or name another folder")
    before = json.loads(kept.read_text(encoding="utf-8"))
    odd = [f"{k} was {before.get(k)!r} and is {v!r}" for k, v in settings.items() if before.get(k) != v]
    if odd:
        raise ValueError(
            f"{out} holds a run with other options ({', '.join(odd)}): restore them, or name another folder"
        )


def updates_left(total: float, checkpoints: Checkpoints) -> int:
    """Updates of a run of ``total`` that its last checkpoint has not done yet: what a progress display counts."""
    latest = checkpoints.latest()
    return round(total) - (int(checkpoints.manifest(latest)["step"]) if latest is not None else 0)


def publish(out: Path, save: Callable[[Path], None], summary_name: str, summary: Mapping[str, Any]) -> None:
    """Put the result into the folder, whole files only, the summary last, and remove the checkpoints.

    Args:
        out: the folder. save: writes the model into the folder that it is given.
        summary_name, summary: the file that says that the run is complete, and what is in it.
    """
    temporary = out / f".writing-{os.getpid()}"
    temporary.mkdir(exist_ok=True)
    save(temporary)
    write_json(temporary / summary_name, summary)
    for path in sorted(temporary.iterdir(), key=lambda p: p.name == summary_name):
        os.replace(path, out / path.name)
    temporary.rmdir()
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
