"""``python -m benchmarks NAME``: measurements with both sides in one run; figures go to ``benchmarks/results``."""

from __future__ import annotations

import argparse
import importlib
import json
import platform
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"
NAMES = ("control_ppo", "proofs")


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
    RESULTS.mkdir(exist_ok=True)
    out = RESULTS / f"{args.name}.json"
    out.write_text(json.dumps({"machine": card, "torch": torch.__version__, "found": found}, indent=2) + "\n")
    print(out)


if __name__ == "__main__":
    main()
