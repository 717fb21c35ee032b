"""``python -m benchmarks.speed.side NAME ours|peer|write FOLDER DEVICE``: one side of a comparison, in a process.

``write`` makes the checkpoint. The others say that they are ready, run once for each line on standard input, and answer
each with a line of JSON; whatever libraries print goes to standard error.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.speed.settings import THREADS, setting
from benchmarks.speed.timing import peak_memory


def main(name: str, side: str, folder: str, device: str) -> None:
    """Run this side as often as it is asked to."""
    chosen = setting(name, device)
    if side == "write":
        from benchmarks.speed.model import write

        write(chosen, Path(folder))
        return
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    torch.set_num_threads(THREADS)
    run = getattr(importlib.import_module(f"benchmarks.speed.{chosen.kind}"), side)
    print("ready", file=answers, flush=True)
    for _ in sys.stdin:
        found = asdict(run(chosen, Path(folder))) | {"peak_bytes": peak_memory(device)}
        gc.collect()  # what this repetition leaves is not the next one's to clear
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
