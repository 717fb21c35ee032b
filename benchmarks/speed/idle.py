"""A benchmark starts when nothing else runs, or not at all."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

LOOK = 2.0
"""Seconds of one look."""

BUSY = 0.10
"""Share of one core that other processes may take together."""


class BusyError(RuntimeError):
    """The machine did not become idle."""


@dataclass(frozen=True)
class Other:
    """Another process. share: of one core."""

    name: str
    pid: int
    share: float

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid}, {self.share:.0%})"


def others(seconds: float = LOOK) -> list[Other]:
    """What other processes took of one core, the busiest first; this one's parents and children are not among them."""
    before = _spent()
    time.sleep(seconds)
    after = _spent()
    found = [
        Other(name, key[0], (spent - before.get(key, ("", 0.0))[1]) / seconds) for key, (name, spent) in after.items()
    ]
    return sorted(found, key=lambda o: -o.share)


def _spent() -> dict[tuple[int, float], tuple[str, float]]:
    """Name and CPU seconds of each other process, by its number and beginning."""
    import psutil

    own = psutil.Process(os.getpid())
    family = {p.pid for p in [own, *own.parents(), *own.children(recursive=True)]}
    found = {}
    for p in psutil.process_iter(["pid", "name", "create_time", "cpu_times"]):
        times = p.info["cpu_times"]
        if p.info["pid"] not in family and times is not None:
            found[p.info["pid"], p.info["create_time"]] = (p.info["name"], times.user + times.system)
    return found


def say_now(text: str) -> None:
    """Print where it is seen at once, into a pipe as well."""
    print(text, flush=True)


def wait(
    limit: float,
    *,
    look: Callable[[], list[Other]] = others,
    now: Callable[[], float] = time.monotonic,
    say: Callable[[str], None] = say_now,
) -> None:
    """Return when other processes take less than :data:`BUSY`; look again and again for ``limit`` seconds.

    Raises:
        BusyError: naming what is busy, once the time is up. One look is always taken.

    >>> wait(0, look=lambda: [Other("editor", 7, 0.01)])
    """
    began, said = now(), ""
    while True:
        seen = look()
        if sum(o.share for o in seen) < BUSY:
            return
        busy = ", ".join(map(str, [o for o in seen if o.share >= 0.01][:5])) or "many small processes"
        if now() - began >= limit:
            raise BusyError(
                f"the machine is not idle, so nothing was measured: {busy}. End what runs, or wait longer (--wait)"
            )
        if busy.split("(")[0] != said:
            say(f"waiting for the machine to be idle: {busy}")
            said = busy.split("(")[0]
