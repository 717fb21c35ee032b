"""``rewardkit reproduce``: run the recipes of published works and say what was shown."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

NAME = "reproduce"
HELP = "Run the recipes of published works: every arm, every seed, an interval and a verdict."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``rewardkit reproduce``."""
    parser.add_argument("slugs", nargs="+", metavar="SLUG", help="works of the catalogue that have a recipe")
    parser.add_argument("--smoke", action="store_true", help="go through the motions in seconds; no verdict")
    parser.add_argument("--fresh", action="store_true", help="repeat what is already in the cache")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the results here too")


def run(args: argparse.Namespace) -> int:
    """Run each recipe in turn; full runs are recorded."""
    from rewardkit.cli.common import quiet_libraries
    from rewardkit.data.whole import write_json
    from rewardkit.papers.runner import get, record, reproduce

    quiet_libraries()
    recipes = [get(slug) for slug in args.slugs]  # all names are looked up before anything runs
    results = []
    for recipe in recipes:
        result = reproduce(recipe, smoke=args.smoke, fresh=args.fresh, say=lambda text: print(text, file=sys.stderr))
        results.append(result)
        print(_report(result))
        if not args.smoke:
            print(f"  recorded in {record(result)}")
        if args.json:
            write_json(args.json, {r["slug"]: r for r in results})
    return 0


def saved(args: argparse.Namespace) -> str:
    """What an interrupted run leaves behind."""
    from rewardkit.papers.runner import cache_folder

    if args.smoke:
        return "smoke runs keep nothing"
    return f"finished arms and seeds are kept in {cache_folder()}; run the same command to go on"


def _report(result: dict[str, Any]) -> str:
    lines = [f"{result['slug']}: {result['verdict'] or 'smoke run, no verdict'} ({result['seconds']} s)"]
    for o in result["outcomes"]:
        verdict = "" if result["smoke"] else f"{o['verdict']}: "
        lines.append(f"  {verdict}{o['claim']}: {o['mean']:.4g} [{o['low']:.4g}, {o['high']:.4g}]")
    return "\n".join(lines)
