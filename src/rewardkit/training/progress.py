"""Progress with time left: a live bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import IO, Any, TypeVar

from rewardkit.registry import entry

Thing = TypeVar("Thing")


@entry("training:progress", tags=("logging",))
def progress(
    things: Iterable[Thing],
    *,
    total: int | None = None,
    label: str = "",
    show: Callable[[Thing], Mapping[str, Any]] | None = None,
    stream: IO[str] | None = None,
    every: float = 10.0,
) -> Iterator[Thing]:
    """Hand the things on and show how far it is, and how long it will take.

    Args:
        things: anything iterable, a loop of :mod:`rewardkit.loops` as well.
        total: how many there are; default: their ``len``, if they have one.
        label: what is being done. show: figures of a thing to show beside it.
        stream: where to; default: standard error. every: seconds between plain lines.

    >>> import io
    >>> out = io.StringIO()
    >>> list(progress([1, 2], label="work", stream=out, every=0.0))
    [1, 2]
    >>> out.getvalue().splitlines()[-1].startswith("work 2/2 in 0:00")
    True
    """
    stream = sys.stderr if stream is None else stream
    count = total if total is not None else (len(things) if isinstance(things, Sized) else None)
    bar = _Bar if stream.isatty() else _Lines
    yield from bar(label, count, stream, every).over(things, show)


class _Lines:
    def __init__(self, label: str, total: int | None, stream: IO[str], every: float) -> None:
        self.label, self.total, self.stream, self.every = label, total, stream, every

    def over(self, things: Iterable[Thing], show: Callable[[Thing], Mapping[str, Any]] | None) -> Iterator[Thing]:
        began = last = time.monotonic()
        done, figures = 0, ""
        for done, thing in enumerate(things, 1):
            figures = _figures(show(thing)) if show else ""
            now = time.monotonic()
            if now - last >= self.every and done != self.total:
                last = now
                left = f", {_clock((now - began) / done * (self.total - done))} left" if self.total else ""
                print(f"{self._count(done)}{left}{figures}", file=self.stream, flush=True)
            yield thing
        print(f"{self._count(done)} in {_clock(time.monotonic() - began)}{figures}", file=self.stream, flush=True)

    def _count(self, done: int) -> str:
        return f"{self.label} {done}" + (f"/{self.total}" if self.total else "")


class _Bar:
    def __init__(self, label: str, total: int | None, stream: IO[str], every: float) -> None:
        self.label, self.total, self.stream = label, total, stream

    def over(self, things: Iterable[Thing], show: Callable[[Thing], Mapping[str, Any]] | None) -> Iterator[Thing]:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
        from rich.progress import TimeRemainingColumn as TimeLeft

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeLeft(),
            TextColumn("{task.fields[figures]}"),
        )
        with Progress(*columns, console=Console(file=self.stream)) as bar:
            task = bar.add_task(self.label, total=self.total, figures="")
            for thing in things:
                bar.update(task, advance=1, figures=_figures(show(thing)) if show else "")
                yield thing


def _figures(values: Mapping[str, Any]) -> str:
    return "".join(f"  {k} {v:.4g}" if isinstance(v, (int, float)) else f"  {k} {v}" for k, v in values.items())


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
