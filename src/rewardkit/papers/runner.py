"""Runs recipes: tunes every arm, runs every seed, keeps each piece, judges, records.

A piece is one (arm, grid point, seed). Its figures are kept in a folder that is named by the recipe's mark, so a second
run repeats only what changed.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rewardkit.data.whole import nullable, write_json
from rewardkit.papers.recipe import Arm, Recipe, Run, judge, overall
from rewardkit.papers.works import RECIPES, RESULTS, find, load, mark, recipe_file
from rewardkit.worlds.cache import root, versions

Say = Callable[[str], None]


def get(slug: str) -> Recipe:
    """The recipe of a work.

    Raises:
        KeyError: if the catalogue has no such work, or the work no recipe yet.
    """
    work = find(load(), slug)
    if not recipe_file(work.slug).exists():
        have = sorted(p.stem for p in RECIPES.glob("[!_]*.py"))
        raise KeyError(f"{work.slug} has no recipe yet; there are {', '.join(have)}")
    found = importlib.import_module(f"rewardkit.papers.recipes.{work.slug}").RECIPE
    if found.slug != work.slug:
        raise ValueError(f"{recipe_file(work.slug)}: RECIPE.slug is {found.slug!r}")
    return found


def cache_folder() -> Path:
    """Where pieces are kept: ``papers`` in the cache of :mod:`rewardkit.worlds.cache`."""
    return root() / "papers"


def reproduce(
    recipe: Recipe,
    *,
    smoke: bool = False,
    fresh: bool = False,
    folder: Path | None = None,
    source: Path | None = None,
    say: Say = lambda text: None,
) -> dict[str, Any]:
    """Run a recipe and judge it.

    Args:
        recipe: what to run. smoke: the smallest size, one seed, one grid point, no figure kept, no verdict.
        fresh: repeat pieces that are already there. folder: where pieces are kept; default :func:`cache_folder`.
        source: the recipe's file; default ``papers/recipes/<slug>.py``. say: told of every piece.

    Returns:
        The result as it is recorded: verdict, outcomes, arms with their figures by seed, versions, seconds. A number
        that is not finite is ``None``.
    """
    stamp = versions()
    made = mark(source or recipe_file(recipe.slug), stamp)
    seeds, grid = (recipe.seeds[:1], recipe.grid[:1]) if smoke else (recipe.seeds, recipe.grid)
    where = (folder or cache_folder()) / recipe.slug / made
    kept = None if smoke else where
    total = sum((len(grid) if a.tuned and len(grid) > 1 else 0) + len(seeds) for a in recipe.arms.values())
    count, began = 0, time.perf_counter()

    def piece(name: str, arm: Arm, point: Mapping[str, Any], seed: int) -> tuple[dict[str, Any], float]:
        nonlocal count
        count += 1
        figures, seconds, again = _piece(name, arm, Run(seed, smoke, point), kept, fresh)
        left = (time.perf_counter() - began) / count * (total - count)
        say(
            f"{recipe.slug} [{count}/{total}] {name} seed {seed} {dict(point) or ''}: "
            f"{'kept from before' if again else f'{seconds:.1f} s'}, about {left:.0f} s left"
        )
        return figures, seconds

    arms: dict[str, Any] = {}
    seconds = 0.0
    for name, arm in recipe.arms.items():
        point, tuning = grid[0], []
        if arm.tuned and len(grid) > 1:
            for candidate in grid:
                figures, took = piece(name, arm, candidate, recipe.tune_seed)
                seconds += took
                tuning.append({"point": dict(candidate), recipe.tune: figures[recipe.tune or ""]})
            point = max(zip(grid, tuning, strict=True), key=lambda pair: _comparable(pair[1][recipe.tune]))[0]
        by_seed = {}
        for seed in seeds:
            by_seed[seed], took = piece(name, arm, point if arm.tuned else {}, seed)
            seconds += took
        arms[name] = {"point": dict(point) if arm.tuned else {}, "tuning": tuning, "seeds": by_seed}
    outcomes = [judge(e, {n: a["seeds"] for n, a in arms.items()}) for e in recipe.expectations]
    result = {
        "slug": recipe.slug,
        "verdict": None if smoke else overall(outcomes),
        "smoke": smoke,
        "scale": recipe.scale,
        "outcomes": [asdict(o) for o in outcomes],
        "arms": arms,
        "seeds": list(seeds),
        "seconds": round(seconds, 1),
        "versions": {"python": platform.python_version(), **stamp},
        "recipe": made,
    }
    return nullable(result)


def _comparable(value: float | None) -> float:
    return -math.inf if value is None else value


def _piece(name: str, arm: Arm, run: Run, kept: Path | None, fresh: bool) -> tuple[dict[str, Any], float, bool]:
    """Figures (``None`` where not finite) and seconds of one piece, and whether it was there already."""
    key = hashlib.sha256(json.dumps([name, run.seed, dict(run.point)], sort_keys=True).encode()).hexdigest()[:12]
    file = kept / f"{name}-{run.seed}-{key}.json" if kept else None
    if file and file.exists() and not fresh:
        found = json.loads(file.read_text(encoding="utf-8"))
        return found["figures"], found["seconds"], True
    start = time.perf_counter()
    figures = nullable(arm.run(run))
    seconds = time.perf_counter() - start
    if file:
        write_json(file, {"figures": figures, "seconds": seconds})
    return figures, seconds, False


def record(result: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Keep a full run as the work's result.

    Raises:
        ValueError: for a smoke run.
    """
    if result["smoke"]:
        raise ValueError(f"a smoke run of {result['slug']} is no result")
    file = folder / f"{result['slug']}.json"
    write_json(file, result)
    return file
