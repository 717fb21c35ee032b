"""Ours beside TRL's trainers: speed and memory, both sides in one run; a full run is kept."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.kept import RESULTS
from benchmarks.speed.compare import finding, table
from benchmarks.speed.idle import BusyError, wait
from benchmarks.speed.settings import NAMES, setting
from benchmarks.speed.workers import alternate, output_of
from rewardkit.data.whole import write_json

KEPT = RESULTS / "speed.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}; default: all of them")
    parser.add_argument("--json", type=Path, metavar="FILE", help=f"where to write; default: {KEPT}, if all are run")
    parser.add_argument("--wait", type=float, default=600.0, metavar="SECONDS", help="for the machine to be idle")


def run(args: argparse.Namespace) -> None:
    """Each comparison, written as soon as it is found; nothing is measured while other processes are at work.

    Raises:
        SystemExit: for an unknown name, a machine that stays busy, or sides that do not compute the same.
    """
    unknown = sorted(set(args.names) - set(NAMES))
    if unknown:
        raise SystemExit(f"no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    found: dict[str, dict[str, Any]] = {}
    try:
        wait(args.wait)
        machine = json.loads(output_of("benchmarks.speed.machine"))
        print(f"{machine['cpu']}, {machine['cores']} cores: {machine['matmul_peak_gflops']:.0f} GFLOP/s", flush=True)
        for name in args.names or NAMES:
            wait(args.wait)
            chosen = setting(name, machine["device"])
            found[name] = finding(chosen, **alternate(chosen), peak=machine["matmul_peak_gflops"] * 1e9)
            print(table({name: found[name]}), flush=True)
            if args.json:
                write_json(args.json, {**found, "machine": machine})
    except BusyError as error:
        raise SystemExit(str(error)) from error
    print(f"\n{table(found)}")
    if set(found) == set(NAMES) and not args.json:
        write_json(KEPT, {"machine": machine, "found": found})
    apart = [name for name, f in found.items() if not f["agrees"]]
    if apart:
        raise SystemExit(f"the two sides do not compute the same in {', '.join(apart)}: see gap")
