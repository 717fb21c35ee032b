"""Where metrics go: JSON lines and TensorBoard always, W&B and Trackio if asked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rewardkit.data.whole import write_text
from rewardkit.registry import entry

KNOWN = ("wandb", "trackio")


@entry("training:tracker", aliases=("Tracker",), tags=("logging",))
class Tracker:
    """Writes metrics of a run, one row a step.

    Rows hold no clock time, so that a run that was killed and resumed leaves the same file as one that was not.

    Args:
        folder: gets ``metrics.jsonl`` and TensorBoard's event files.
        also: ``wandb``, ``trackio``. project, name, config: passed to these.
        tensorboard: TensorBoard's files are written unless this is False.

    Raises:
        ImportError: if a service that was asked for is not installed, naming the extra.

    >>> import tempfile
    >>> tracker = Tracker(tempfile.mkdtemp(), tensorboard=False)
    >>> tracker.log(1, {"loss": 0.5})
    >>> read_metrics(tracker.path)
    [{'step': 1, 'loss': 0.5}]
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        also: Sequence[str] = (),
        project: str = "rewardkit",
        name: str | None = None,
        config: Mapping[str, Any] | None = None,
        tensorboard: bool = True,
    ) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path = self.folder / "metrics.jsonl"
        unknown = sorted(set(also) - set(KNOWN))
        if unknown:
            raise ValueError(f"Tracker knows {KNOWN}, not {unknown}")
        options = {"project": project, "name": name, "config": dict(config or {})}
        self._services = [_service(s) for s in also]
        for service in self._services:
            service.init(**options)
        self._tensorboard = tensorboard
        self._board: Any = None

    def log(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Append one row; numbers that are not finite become null."""
        row = {"step": step, **{k: _number(v) for k, v in metrics.items()}}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
        numbers = {k: v for k, v in row.items() if k != "step" and isinstance(v, (int, float))}
        if self._tensorboard:
            board = self._writer(step)
            for name, value in numbers.items():
                board.add_scalar(name, value, step)
            board.flush()
        for service in self._services:
            service.log(numbers, step=step)

    def conclude(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Append the row that ends a run, unless the run was killed after writing it and is now at its end again."""
        rows = read_metrics(self.path) if self.path.is_file() else []
        if not (rows and rows[-1]["step"] == step and metrics.keys() <= rows[-1].keys()):
            self.log(step, metrics)

    def resume(self, step: int) -> None:
        """Forget rows beyond ``step``, and a last line that was cut off; the file is replaced in one move."""
        if self.path.is_file():
            kept = [r for r in read_metrics(self.path) if r["step"] <= step]
            write_text(self.path, "".join(json.dumps(r) + "\n" for r in kept))

    def close(self) -> None:
        """Flush and finish everything."""
        if self._board is not None:
            self._board.close()
            self._board = None
        for service in self._services:
            service.finish()

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _writer(self, step: int) -> Any:
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            # Everything that a killed run wrote from this step on is purged.
            self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=step)
        return self._board


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a ``metrics.jsonl``; a last line that a crash cut off is left out.

    Raises:
        ValueError: for a broken line elsewhere, with its number.
    """
    lines = Path(path).read_text(encoding="utf-8").splitlines(keepends=True)
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(dict(json.loads(line)))
        except ValueError as error:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise ValueError(f"{path}, line {number}: not a JSON object ({error})") from error
    return rows


def _number(value: Any) -> Any:
    if isinstance(value, (str, bool)) or value is None:
        return value
    number = float(value)
    if not math.isfinite(number):
        return None
    return int(value) if isinstance(value, int) else number


def _service(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"Tracker(also=({name!r},)) needs it installed: pip install 'rewardkit[{name}]'") from error
