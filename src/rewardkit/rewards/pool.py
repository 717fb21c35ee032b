"""A reward that computes, in processes of its own: all cores score, and one that dies or hangs costs its rows alone."""

from __future__ import annotations

import io
import logging
import os
import pickle
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from multiprocessing.connection import wait
from typing import Any, cast

import torch
from torch import nn

from rewardkit.protocols import Reward
from rewardkit.registry import entry
from rewardkit.rewards.base import RewardBase, scope_of
from rewardkit.rewards.function import function_reward
from rewardkit.rewards.workers import Units, Worker, failing, joined, kill_all, units_of
from rewardkit.types import Rollout, Scores

log = logging.getLogger(__name__)

TASKS = 4
"""Tasks a worker in one batch: some rows take longer than others."""


class _Pickler(pickle.Pickler):
    """By value, and nothing that learns: a copy would stay as it is while the model is trained."""

    def reducer_override(self, thing: Any) -> Any:
        if isinstance(thing, nn.Module):
            raise ValueError(
                "it holds a model, and a copy of one in another process would not follow its training: score with it "
                "in this process, and put in_processes around the rules beside it"
            )
        return NotImplemented


def _packed(thing: Any, what: str) -> bytes:
    """``thing`` as bytes.

    Raises:
        ValueError: naming ``what`` cannot be sent, and the mend.
    """
    file = io.BytesIO()
    try:
        _Pickler(file, pickle.HIGHEST_PROTOCOL).dump(thing)
    except Exception as error:
        raise ValueError(
            f"in_processes: {what} cannot be sent to another process ({error}); functions and classes must stand at "
            "the top of a module or file, not inside a function or as a lambda"
        ) from error
    return file.getvalue()


class InProcesses(RewardBase):
    """See :func:`in_processes`."""

    concurrent = True

    def __init__(self, reward: Reward, workers: int, timeout: float) -> None:
        self.reward, self.workers, self.timeout = reward, workers, timeout
        self.name, self.scope = reward.name, scope_of(reward)
        if workers < 1 or not timeout > 0:
            raise ValueError(f"in_processes: workers and timeout are above 0, not {workers} and {timeout}")
        if self.scope == "batch":
            raise ValueError(
                f"in_processes: {self.name!r} has scope 'batch', and a batch cannot be divided: leave it out"
            )
        if getattr(reward, "concurrent", False):
            raise ValueError(
                f"in_processes: {self.name!r} mostly waits, and its rows wait together as it is: leave it out"
            )
        if _remembers(reward.state_dict() if hasattr(reward, "state_dict") else {}):
            raise ValueError(
                f"in_processes: {self.name!r} remembers, and every process would remember something else: put "
                "in_processes around those of its parts that do not"
            )
        packed = _packed(reward, f"reward {self.name!r}")
        # Files of the user's are no modules that another process could import by name.
        users = {name: m.__file__ for name, m in sys.modules.items() if name.startswith("rewardkit_user_")}
        self._packed = pickle.dumps(([f for name, f in users.items() if name.encode() in packed], packed))
        self._begin()

    def _begin(self) -> None:
        self._lock, self._alive = threading.Lock(), cast(list[Worker], [])
        self._end = weakref.finalize(self, kill_all, self._alive)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in ("_lock", "_alive", "_end")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        """The reward's own scores, but for ``made_by``.

        Raises:
            ValueError: if rows or ``ctx`` cannot be sent, or a process cannot begin, with the mend.
            Exception: what the reward itself raises.
        """
        if not len(rollout):
            return self.reward(rollout, ctx)
        device, plain = rollout.mask.device, rollout.to("cpu")
        with self._lock:
            try:
                pieces, why = self._run(plain, dict(ctx or {}))
            except BaseException:
                # What the others are at belongs to a batch that nobody waits for any more.
                kill_all(self._alive)
                raise
        total = len(rollout)
        for row, reason in why.items():
            log.warning("reward %r failed on row %d: %s", self.name, row, reason)
        scores = joined(pieces, total) if pieces else Scores(torch.zeros(total))
        return _on(failing(scores, why), device)

    def _run(self, rollout: Rollout, ctx: dict[str, Any]) -> tuple[list[tuple[list[int], Scores]], dict[int, str]]:
        """Scores of the rows that were scored; for the others, the reason."""
        units = units_of(rollout, self.scope)
        size = -(-len(units) // (self.workers * TASKS))
        tasks = deque(units[at : at + size] for at in range(0, len(units), size))
        pieces: list[tuple[list[int], Scores]] = []
        why: dict[int, str] = {}
        while len(self._alive) < min(self.workers, len(tasks)):
            self._alive.append(Worker(self._packed))
        while tasks or any(w.task for w in self._alive):
            for worker in self._alive:
                if worker.task is None and tasks:
                    worker.give(*self._task(rollout, tasks.popleft(), ctx))
            busy = [w for w in self._alive if w.task is not None]
            ready = wait([w.pipe for w in busy], max(0.0, min(w.until for w in busy) - time.monotonic()))
            for worker in busy:
                if worker.pipe in ready:
                    failed = self._heard(worker, pieces)
                else:
                    failed = f"no score within {self.timeout:g} s" if time.monotonic() >= worker.until else None
                if failed is None:
                    continue
                unit, rest = self._replaced(worker, failed)
                why |= dict.fromkeys(unit, failed)
                tasks.extend([rest] if rest else [])
        return pieces, why

    def _task(self, rollout: Rollout, units: Units, ctx: dict[str, Any]) -> tuple[bytes, Units]:
        rows = [row for unit in units for row in unit]
        place = {row: i for i, row in enumerate(rows)}
        inner = [[place[row] for row in unit] for unit in units]
        return _packed((rollout.select(rows), inner, ctx), f"a row or ctx of reward {self.name!r}"), units

    def _heard(self, worker: Worker, pieces: list[tuple[list[int], Scores]]) -> str | None:
        """Take a message in. Returns why the process is at its end, if it is."""
        try:
            kind, said = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join()
            return f"the process that scored it ended with exit code {worker.process.exitcode}"
        if kind == "at":
            worker.at, worker.until = said, time.monotonic() + self.timeout
        elif kind == "scores":
            pieces.append(([row for unit in worker.task or [] for row in unit], pickle.loads(said)))
            worker.task = None
        elif kind == "raised":
            raise said
        else:
            raise ValueError(f"in_processes: a process cannot take reward {self.name!r}: {said}")
        return None

    def _replaced(self, worker: Worker, failed: str) -> tuple[list[int], Units]:
        """Another process in the worker's place; the unit that it was at, and the others of its task."""
        worker.kill()
        self._alive.remove(worker)
        if worker.at is None:
            raise ValueError(
                f"in_processes: {failed} before it scored anything: a script that scores in processes does so under "
                "`if __name__ == '__main__':`"
            )
        units = worker.task or []
        self._alive.append(Worker(self._packed))
        return units[worker.at], units[: worker.at] + units[worker.at + 1 :]

    def close(self) -> None:
        """End the processes; the next call begins new ones."""
        with self._lock:
            kill_all(self._alive)

    def children(self) -> Mapping[str, Reward]:
        return {"reward": self.reward}


def _remembers(state: Mapping[str, Any]) -> bool:
    """Whether anything but names stands in the state of a reward and its parts."""
    return any(_remembers(v) if isinstance(v, Mapping) else True for v in state.values())


def _on(scores: Scores, device: torch.device) -> Scores:
    def moved(x: Any) -> Any:
        return None if x is None else x.to(device)

    return replace(
        scores,
        outcome=moved(scores.outcome),
        dense={k: moved(v) for k, v in scores.dense.items()},
        parts={k: _on(v, device) for k, v in scores.parts.items()},
        before={k: _on(v, device) for k, v in scores.before.items()},
        std=moved(scores.std),
        status=moved(scores.status),
    )


@entry("rewards:in_processes", tags=("adapter",))
def in_processes(
    reward: Reward | Callable[..., Any], workers: int | None = None, *, timeout: float = 60.0
) -> InProcesses:
    """A reward that computes (a rule, a parser, a verifier), over processes with one thread each.

    The scores are those that it gives here, row by row. Rows are scored one at a time, with their group where the scope
    is ``group`` or ``family``: a function that takes the whole batch sees it in pieces, so every row must have the
    columns that it reads, and an exception in it costs a row and not the batch. A row whose process dies, or that takes
    longer than ``timeout``, has status ERROR and says why; the process is replaced, and other rows lose nothing.

    What mostly waits (async functions, servers) needs no processes: its rows wait beside each other as it is. Models
    and rewards that remember cannot be sent: their copies would not learn. As for every use of processes, a script that
    does this stands under ``if __name__ == "__main__":``.

    Args:
        reward: of any scope but ``batch``, or a function. workers: processes; default: a core each.
        timeout: seconds for a row, or a group.

    Raises:
        ValueError: for a reward that cannot be sent or divided, with the mend.

    >>> from rewardkit.rewards.rules.text import Length
    >>> in_processes(Length(unit="words"), 2, timeout=5.0).name
    'length'
    """
    made = cast(Reward, reward) if hasattr(reward, "scope") else function_reward(reward)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return InProcesses(made, workers or cores, timeout)
