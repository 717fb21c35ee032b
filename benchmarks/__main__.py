"""``python -m benchmarks NAME``: measurements with both sides in one run; figures go to ``benchmarks/results``."""

from __future__ import annotations

import argparse
import importlib
import platform
from pathlib import Path

import torch

from rewardkit.data.whole import write_json

RESULTS = Path(__file__).parent / "results"
NAMES = ("control_ppo", "control_sac", "proofs")


def main() -> None:
    """Run one benchmark and keep what it found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="name", required=True)
    modules = {name: importlib.import_module(f"benchmarks.{name}") for name in NAMES}
    for name, module in modules.items():
        module.add_arguments(commands.add_parser(name, help=(module.__doc__ or "").splitlines()[0]))
    args = parser.parse_args()
    found = modules[args.name].run(args)
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    out = RESULTS / f"{args.name}.json"
    write_json(out, {"machine": card, "torch": torch.__version__, "found": found})
    print(out)


if __name__ == "__main__":
    main()
