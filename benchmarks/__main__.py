"""``python -m benchmarks NAME``: measurements with both sides in one run; figures go to ``benchmarks/results``.

``run`` compares speed and memory with TRL's trainers; the others compare with other libraries, or prove a claim.
"""

from __future__ import annotations

import argparse
import importlib

from benchmarks.kept import keep
from benchmarks.speed import run as speed

NAMES = ("control_ppo", "control_sac", "proofs")


def main() -> None:
    """Run one benchmark and keep what it finds, part by part, as it finds it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="name", required=True)
    modules = {name: importlib.import_module(f"benchmarks.{name}") for name in NAMES}
    for name, module in modules.items():
        module.add_arguments(commands.add_parser(name, help=(module.__doc__ or "").splitlines()[0]))
    speed.add_arguments(commands.add_parser("run", help=(speed.__doc__ or "").splitlines()[0]))
    args = parser.parse_args()
    if args.name == "run":
        speed.run(args)
        return
    for name, found in modules[args.name].run(args):
        print(keep(name, found), flush=True)


if __name__ == "__main__":
    main()
