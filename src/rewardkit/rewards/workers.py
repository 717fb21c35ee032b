"""Processes that score: what one does, and how it is begun, given a task and ended."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import accumulate, pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from rewardkit.rewards.load import module_of
from rewardkit.rewards.rows import spread
from rewardkit.types import ERROR, Cost, Rollout, Scores

STARTING = 300.0
"""Seconds that a process may take to import what it needs."""

Units = list[list[int]]
"""Rows that must be seen together, by number."""


def units_of(rollout: Rollout, scope: str) -> Units:
    """Rows that a reward of this scope must see together, in order of their first: forks stay with their parents."""
    labels = list(range(len(rollout))) if scope == "sample" else getattr(rollout, scope).tolist()
    for row, parent in enumerate([] if rollout.parent is None else rollout.parent.tolist()):
        if parent >= 0 and labels[row] != labels[parent]:
            labels = [labels[parent] if label == labels[row] else label for label in labels]
    members: dict[int, list[int]] = {}
    for row, label in enumerate(labels):
        members.setdefault(label, []).append(row)
    return list(members.values())


def joined(pieces: Sequence[tuple[Sequence[int], Scores]], total: int) -> Scores:
    """Scores of some rows each, as scores of ``total`` rows; those of none are MISSING. Costs add."""
    found = [scores for _, scores in pieces]
    edges = list(accumulate((len(s) for s in found), initial=0))
    places = [list(range(a, b)) for a, b in pairwise(edges)]

    def inner(pick: Callable[[Scores], Mapping[str, Scores]]) -> dict[str, Scores]:
        names = dict.fromkeys(name for s in found for name in pick(s))
        return {n: joined([(p, pick(s)[n]) for p, s in zip(places, found, strict=True) if n in pick(s)], edges[-1])
                for n in names}  # fmt: skip

    first = found[0]
    whys = [s.why or [None] * len(s) for s in found] if any(s.why for s in found) else None
    whole = Scores(
        None if first.outcome is None else _cat([cast(Tensor, s.outcome) for s in found]),
        {axis: _cat([s.dense[axis] for s in found]) for axis in first.dense},
        inner(lambda s: s.parts),
        first.weights,
        None if first.std is None else _cat([cast(Tensor, s.std) for s in found]),
        None if whys is None else [w for why in whys for w in why],
        status=_cat([s.status for s in found]),
        cost=sum((s.cost for s in found), Cost()),
        before=inner(lambda s: s.before),
    )
    return spread(whole, [row for rows, _ in pieces for row in rows], total)


def _cat(tensors: Sequence[Tensor]) -> Tensor:
    """Rows below each other, the second axis as long as the longest."""
    if tensors[0].ndim < 2:
        return torch.cat(list(tensors))
    width = max(x.shape[1] for x in tensors)
    return torch.cat([torch.cat([x, x.new_zeros(len(x), width - x.shape[1], *x.shape[2:])], 1) for x in tensors])


def failing(scores: Scores, why: Mapping[int, str]) -> Scores:
    """The scores with status ERROR in the rows that have a reason."""
    status, reasons = scores.status.clone(), list(scores.why or [None] * len(scores))
    for row, reason in why.items():
        status[row], reasons[row] = ERROR, reason
    parts = {name: failing(part, why) for name, part in scores.parts.items()}
    return replace(scores, status=status, why=reasons if any(reasons) else None, parts=parts)


def _serve(pipe: Connection) -> None:
    """A worker: the reward first, then tasks until the pipe is closed. It says which unit it is at before each."""
    torch.set_num_threads(1)
    if hasattr(os, "setsid"):
        os.setsid()  # a group of its own, which ends as a whole
    try:
        files, packed = pickle.loads(pipe.recv_bytes())
        for file in files:
            module_of(Path(file))
        reward = pickle.loads(packed)
    except Exception as error:
        return pipe.send(("unready", f"{type(error).__name__}: {error}"))
    while True:
        try:
            rollout, units, ctx = pickle.loads(pipe.recv_bytes())
        except EOFError:
            return None
        try:
            pieces = []
            for number, rows in enumerate(units):
                pipe.send(("at", number))
                pieces.append((rows, replace(reward(rollout.select(rows), ctx), made_by=None)))
            answer = pickle.dumps(joined(pieces, len(rollout)))
        except Exception as error:
            pipe.send(("raised", _sendable(error)))
        else:
            pipe.send(("scores", answer))


def _sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


class Worker:
    """A process with its end of the pipe, the task that it has, the unit that it is at, and until when it may be."""

    def __init__(self, packed: bytes) -> None:
        # A fork of a server that has imported all: begun anew in no time. Never of this process, which has threads.
        methods = multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        if hasattr(context, "set_forkserver_preload"):
            context.set_forkserver_preload([__name__])
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,), daemon=True, name="reward")
        self.process.start()
        theirs.close()
        self.task: Units | None = None
        self.at: int | None = None
        self.until = 0.0
        self._send(packed)

    def _send(self, packed: bytes) -> None:
        # One that is gone is heard of where its answer is read.
        with suppress(OSError):
            self.pipe.send_bytes(packed)

    def give(self, packed: bytes, units: Units) -> None:
        """Have it score these units."""
        self.task, self.at, self.until = units, None, time.monotonic() + STARTING
        self._send(packed)

    def kill(self) -> None:
        """End it, with the programs that it has begun."""
        if hasattr(os, "killpg") and self.process.is_alive():
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.pipe.close()


def kill_all(workers: list[Worker]) -> None:
    """End them, and empty the list."""
    while workers:
        workers.pop().kill()
