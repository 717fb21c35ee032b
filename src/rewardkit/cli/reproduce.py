"""``rewardkit reproduce``: run the recipes of published works and say what was shown."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from rewardkit.cli.common import outcome_line, quiet_libraries

NAME = "reproduce"
HELP = "Run the recipes of published works: every arm, every seed, an interval and a verdict."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``rewardkit reproduce``."""
    parser.add_argument("slugs", nargs="+", metavar="SLUG", help="works of the catalogue that have a recipe")
    parser.add_argument("--smoke", action="store_true", help="go through the motions in seconds; no verdict")
    parser.add_argument("--fresh", action="store_true", help="repeat what is already in the cache")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the results here too")


def run(args: argparse.Namespace) -> int:
    """Run each recipe in turn; full runs are recorded.

    Raises:
        OSError: where the results folder cannot be written; ``--json`` is written by then.
    """
    from rewardkit.data.whole import write_json
    from rewardkit.papers.runner import get, reproduce

    quiet_libraries()
    recipes = [get(slug) for slug in args.slugs]  # all names are looked up before anything runs
    results = []
    for recipe in recipes:
        result = reproduce(recipe, smoke=args.smoke, fresh=args.fresh, say=lambda text: print(text, file=sys.stderr))
        results.append(result)
        print(_report(result))
        if args.json:
            write_json(args.json, {r["slug"]: r for r in results})
        if not args.smoke:
            print(f"  recorded in {_recorded(result)}")
    return 0


def _recorded(result: dict[str, Any]) -> Path:
    from rewardkit.papers.runner import record
    from rewardkit.papers.works import RESULTS

    try:
        return record(result, RESULTS)
    except OSError as error:
        mend = "make the folder writable, or take the result from --json FILE"
        raise OSError(f"{RESULTS}: the result of {result['slug']} cannot be recorded: {error} ({mend})") from error


def saved(args: argparse.Namespace) -> str:
    """What an interrupted run leaves behind."""
    from rewardkit.papers.runner import cache_folder

    if args.smoke:
        return f"smoke runs keep no figures; a world's base model, once built, stays in {cache_folder().parent}"
    return f"finished arms and seeds are kept in {cache_folder()}; run the same command to go on"


def _report(result: dict[str, Any]) -> str:
    lines = [f"{result['slug']}: {result['verdict'] or 'smoke run, no verdict'} ({result['seconds']} s)"]
    lines += [f"  {outcome_line(o, smoke=result['smoke'])}" for o in result["outcomes"]]
    return "\n".join(lines)
