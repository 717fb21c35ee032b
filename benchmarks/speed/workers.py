"""The processes of the two sides, run by turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from benchmarks.speed.settings import THREADS, Setting

ROOT = Path(__file__).resolve().parents[2]
REPETITIONS = 3


def environment() -> dict[str, str]:
    """Of a side: its threads, no network, nothing that a tokenizer does beside."""
    threads = {name: str(THREADS) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    return {**os.environ, **threads, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


def output_of(*module: str) -> str:
    """What ``python -m MODULE ...`` prints.

    Raises:
        RuntimeError: with what it said, if it failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", *module], env=environment(), cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(module)} failed:\n{done.stderr[-4000:]}")
    return done.stdout


class Side:
    """A process that runs one side whenever it is asked to, and sleeps in between.

    Raises:
        RuntimeError: with the end of what it said, if the process dies.
    """

    def __init__(self, setting: Setting, side: str, folder: Path, log: IO[bytes]) -> None:
        self.name, self.log = f"{setting.name} of {side}", log
        command = [sys.executable, "-m", "benchmarks.speed.side", setting.name, side, str(folder), setting.device]
        self.process = subprocess.Popen(
            command, env=environment(), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
        self._answer()  # its start would take time from the other side's measurement

    def run(self) -> dict[str, Any]:
        """One repetition."""
        assert self.process.stdin is not None
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        return json.loads(self._answer())

    def _answer(self) -> str:
        assert self.process.stdout is not None
        answer = self.process.stdout.readline()
        if not answer:
            self.process.wait()
            self.log.seek(0)
            raise RuntimeError(f"{self.name} failed:\n{self.log.read()[-4000:].decode(errors='replace')}")
        return answer

    def end(self) -> None:
        """Let the process go."""
        self.process.kill()
        self.process.communicate()


@contextmanager
def side(setting: Setting, name: str, folder: Path) -> Iterator[Side]:
    """A side's process, for as long as it is needed."""
    with tempfile.TemporaryFile() as log:
        made = Side(setting, name, folder, log)
        try:
            yield made
        finally:
            made.end()


def alternate(setting: Setting, repetitions: int = REPETITIONS) -> dict[str, list[dict[str, Any]]]:
    """Both sides by turns, from one checkpoint; each side is one process, for memory a fresh one.

    Memory is taken once: it hardly varies, and the peer's step takes minutes.
    """
    repetitions = 1 if setting.memory else repetitions
    found: dict[str, list[dict[str, Any]]] = {"ours": [], "peer": []}
    with tempfile.TemporaryDirectory() as parent, ExitStack() as kept:
        folder = Path(parent)
        output_of("benchmarks.speed.side", setting.name, "write", str(folder), setting.device)
        lasting = {} if setting.memory else {name: kept.enter_context(side(setting, name, folder)) for name in found}
        for _ in range(repetitions):
            for name, runs in found.items():
                with ExitStack() as fresh:
                    process = lasting.get(name) or fresh.enter_context(side(setting, name, folder))
                    runs.append(process.run())
    return found
