"""``python -m benchmarks.speed.machine``: what machine this is, and how fast it multiplies matrices."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed.settings import THREADS


def peak(device: str, *, size: int | None = None, seconds: float = 2.0) -> float:
    """Operations a second of square matrix products: float32 on a CPU, bfloat16 on a GPU; the fastest of many.

    Args:
        size: of the matrices. seconds: how long to try.
    """
    size = size or (8192 if device == "cuda" else 2048)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    out, fastest, began = a @ b, float("inf"), time.perf_counter()
    while time.perf_counter() - began < seconds:
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        if device == "cuda":
            torch.cuda.synchronize()
        fastest = min(fastest, time.perf_counter() - start)
    return 2 * size**3 / fastest


def describe(device: str) -> dict[str, Any]:
    """The machine, the versions that matter and the peak."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers", "trl")}
    cores = len(os_cores())
    found = {"cpu": cpu_model(), "cores": cores, "memory_bytes": memory(), "system": platform.platform()}
    found |= {"python": platform.python_version(), **versions, "threads": THREADS, "device": device}
    if device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
    return found | {"matmul_peak_gflops": peak(device) / 1e9}


def os_cores() -> set[int]:
    """The cores that this process may use."""
    import os

    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def cpu_model() -> str:
    """The processor's name, as the system gives it."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def memory() -> int:
    """Bytes of main memory."""
    import psutil

    return int(psutil.virtual_memory().total)


if __name__ == "__main__":
    torch.set_num_threads(THREADS)
    print(json.dumps(describe("cuda" if torch.cuda.is_available() else "cpu")))
