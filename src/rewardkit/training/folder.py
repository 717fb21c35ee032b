"""The folder of a run: whose it is, and how its result is put there whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from rewardkit.data.whole import write_json
from rewardkit.training.checkpoint import Checkpoints
from rewardkit.training.items import write_seen
from rewardkit.training.ranks import Ranks
from rewardkit.training.tracking import Tracker

OPTIONS, CHECKPOINTS = "options.json", "checkpoints"


@contextmanager
def run_in(
    out: Path, settings: Mapping[str, Any], *, ranks: Ranks, also: Sequence[str] = (), resume: bool = False
) -> Iterator[Tracker | None]:
    """The folder, taken for a run of these settings, or checked to be this run's, with its tracker.

    A run that fails before its first checkpoint gives the folder back, so that the corrected command can have it.

    Args:
        out: the folder; made if absent. settings: what a resumed run must have in common with the first.
        ranks: the main one alone takes, logs and publishes; the others get ``None`` for a tracker.
        also: ``wandb``, ``trackio``. resume: whether the folder may hold the beginning of this run.

    Raises:
        ValueError: if it holds another run, or a run and ``resume`` was not asked for; on all ranks.
        ImportError: for a service that is not installed.
    """
    problem: Exception | None = None
    if ranks.main:
        try:
            _claim(out, settings, resume)
        except Exception as error:
            problem = error
    problem = ranks.broadcast(problem)
    if problem is not None:
        raise problem
    try:
        with Tracker(out, also=also, config=settings) if ranks.main else nullcontext() as tracker:
            yield tracker
    except BaseException:
        if ranks.main:
            _give_back(out)
        raise


def same_options(kept: Path, settings: Mapping[str, Any]) -> None:
    """The file ``kept`` says these ``settings``, and may say more.

    Raises:
        ValueError: naming those that differ.
    """
    before = json.loads(kept.read_text(encoding="utf-8"))
    odd = [f"{k} was {before.get(k)!r} and is {v!r}" for k, v in settings.items() if before.get(k) != v]
    if odd:
        raise ValueError(
            f"{kept} is of a run with other options ({', '.join(odd)}): restore them, or name another folder or file"
        )


def finished(out: Path, summary_name: str, settings: Mapping[str, Any]) -> bool:
    """Whether the run in ``out`` is complete.

    Raises:
        ValueError: if it is complete with other settings than these.
    """
    if not (out / summary_name).is_file():
        return False
    if (out / OPTIONS).is_file():
        same_options(out / OPTIONS, settings)
    return True


def updates_left(total: float, checkpoints: Checkpoints) -> int:
    """Updates of a run of ``total`` that its last checkpoint has not done yet: what a progress display counts."""
    return round(total) - int(checkpoints.last()["step"])


def publish(
    out: Path,
    save: Callable[[Path], None],
    summary_name: str,
    summary: Mapping[str, Any],
    *,
    ranks: Ranks,
    trained_on: Collection[str] = (),
) -> None:
    """Put the result into the folder, whole files only, the summary last, and remove the checkpoints.

    Args:
        out: the folder. save: writes the model into the folder that it is given.
        summary_name, summary: the file that says that the run is complete, and what is in it.
        ranks: the main one writes, when none reads a checkpoint any more; the others wait for it.
        trained_on: digests of the prompts that the model has seen, see :mod:`rewardkit.training.items`; none, no file.
    """
    ranks.wait()
    if ranks.main:
        temporary = out / f".writing-{os.getpid()}"
        temporary.mkdir(exist_ok=True)
        save(temporary)
        if trained_on:
            write_seen(temporary, trained_on)
        write_json(temporary / summary_name, summary)
        for path in sorted(temporary.iterdir(), key=lambda p: p.name == summary_name):
            os.replace(path, out / path.name)
        temporary.rmdir()
        shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    ranks.wait()


def _claim(out: Path, settings: Mapping[str, Any], resume: bool) -> None:
    kept = out / OPTIONS
    if not kept.is_file():
        write_json(kept, settings)
    elif not resume:
        raise ValueError(f"{out} already holds a run: add --resume to go on with it, or name another folder")
    else:
        same_options(kept, settings)


def _give_back(out: Path) -> None:
    """Forget whose the folder is, unless there is something to go on with."""
    if not any((out / CHECKPOINTS).glob("step-*")):
        (out / OPTIONS).unlink(missing_ok=True)
