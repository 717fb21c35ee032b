"""What the C library does with memory that a step gives back."""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""``M_TRIM_THRESHOLD`` and ``M_MMAP_THRESHOLD`` of glibc's ``mallopt``."""


def keep_memory() -> bool:
    """Let this process keep what it frees for what it needs next; whether it could be said.

    By default glibc hands the memory of a step's activations back to the system when the step ends, and the next step
    pays for every page of it again, a tenth of its time on a CPU. The most that the process holds does not change.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # 32 MiB is the largest block that glibc can be told to take from its heap.
    return mallopt is not None and bool(mallopt(MMAP_THRESHOLD, 2**25)) and bool(mallopt(TRIM_THRESHOLD, 2**31 - 1))
