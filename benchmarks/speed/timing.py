"""The clock of one side, and what a side reports."""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass, field

import torch


@dataclass
class Clock:
    """Moments between steps, the first at the end of what warms up."""

    device: str
    marks: list[float] = field(default_factory=list)

    def tick(self) -> None:
        """A step has ended; on a GPU, has truly ended."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        self.marks.append(time.perf_counter())

    def seconds(self, steps: int) -> float:
        """From the first mark to the last.

        Raises:
            RuntimeError: if the side made another number of steps.
        """
        if len(self.marks) != steps + 1:
            raise RuntimeError(f"{len(self.marks)} steps were made, one to warm up included, not {steps + 1}")
        return self.marks[-1] - self.marks[0]


@dataclass(frozen=True)
class Run:
    """What one side reports of one repetition.

    Args:
        seconds: of the measured steps. evidence: numbers that the other side must find too: losses, scores, norms.
        expected: our numbers, where the peer's process computed them on what the peer had drawn; else ``None``.
    """

    seconds: float
    evidence: list[float]
    expected: list[float] | None = None


def peak_memory(device: str) -> int:
    """Most bytes that this process has held: resident on a CPU, allocated on a GPU.

    Linux lets a process begin with its parent's ``ru_maxrss``; the parent here is smaller than either side.
    """
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
