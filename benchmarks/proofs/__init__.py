"""Every generator through the same reward model, policy gradient, preferences and backpropagation, on its world."""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.kept import RESULTS
from benchmarks.proofs.kit import Run
from rewardkit.data.whole import write_text

WORLDS = tuple(sorted(f.stem for f in Path(__file__).parent.glob("[a-z]*.py") if f.stem != "kit"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--world", choices=WORLDS, action="append", help="default: all")
    parser.add_argument("--seeds", type=int, default=3)


def run(args: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """Prove the worlds asked for, one after the other; pages lie beside the figures."""
    torch.set_num_threads(1)
    for world in args.world or WORLDS:
        began, worked = time.perf_counter(), time.process_time()
        proof = importlib.import_module(f"benchmarks.proofs.{world}").prove(Run(args.seeds, print))
        page = RESULTS / f"proof_{world}.html"
        write_text(page, proof.page())
        print(page)
        spent = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - worked}
        about = {"world": world, **spent, "note": proof.note}
        yield f"proof_{world}", about | {"rows": proof.summary(), "curves": proof.curves}
