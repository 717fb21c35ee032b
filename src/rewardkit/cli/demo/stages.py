"""The stages of the demo in order, and the files it writes."""

from __future__ import annotations

import io
import multiprocessing
import platform
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import transformers

from rewardkit import __version__
from rewardkit.cli.demo.pipeline import (
    METHODS,
    SMOKE,
    Budget,
    Outcome,
    Setting,
    compare_replies,
    fit_reward,
    measure_reward,
    rank_replies,
    replies,
)
from rewardkit.cli.demo.report import build
from rewardkit.cli.demo.results import summary
from rewardkit.data.whole import write_json, write_text
from rewardkit.evals.overoptimization import Ruler
from rewardkit.policies.language import LanguagePolicy
from rewardkit.types import Sample
from rewardkit.worlds.assistant import AssistantWorld
from rewardkit.worlds.assistant.gold import parts_of, total


def demo(out: Path, budget: Budget, seeds: Sequence[int], began: float) -> dict[str, Any]:
    """Run everything and write ``report.html``, ``summary.json``, the reward model and the logs into ``out``.

    Args:
        out: the folder; logs of an earlier run in it are removed. budget: what it may cost.
        seeds: of everything after the reward model.
        began: ``time.perf_counter()`` when the command started.

    Returns:
        the summary.
    """
    world = AssistantWorld()
    sft = world.base_policy(**budget.sft)
    sft.max_tokens = 32768  # short rows: larger batches cost little memory and save many passes
    logs = _fresh(out / "logs")
    judged = rank_replies(world, sft, budget, seed=1)
    held_out = compare_replies(world, sft, world.prompts("validation"), budget.held_out, budget, seed=2)
    reward = fit_reward(sft, judged, budget, logs)
    reward.save(out / "reward_model")
    measured = measure_reward(reward, world, judged, held_out)

    settings = [_setting(world, sft, reward, budget, seed, logs) for seed in seeds]
    first = settings[0]
    found = in_parallel([(name, s) for s in settings for name in METHODS])
    tracks = {name: [o.track for n, o in found if n == name] for name in METHODS}
    texts = {"SFT": replies(first, sft)}
    for _, outcome in found[: len(METHODS)]:
        texts |= outcome.replies
    shown = [
        (str(p.prompt).strip(), {who: lines[i] for who, lines in texts.items()})
        for i, p in enumerate(first.ruler.prompts[: budget.shown])
    ]
    figures = summary(tracks, measured, seeds=seeds, seconds=time.perf_counter() - began)
    figures["budget"], figures["versions"] = asdict(budget), _versions()
    figures["smoke"] = budget == SMOKE
    page = build(
        tracks,
        figures,
        shown,
        spread={
            "proxy": float(first.ruler.baseline_proxy.std()),
            "gold": float(first.ruler.baseline_gold.std()),
        },
        marks=lambda i, text: _marks(first.ruler.prompts[i], text),
        facts=_facts(figures, sft, budget),
    )
    write_json(out / "summary.json", figures)
    write_text(out / "report.html", page.html())
    return figures


def _fresh(logs: Path) -> Path:
    """The folder of logs without those of an earlier run, to which trackers would append; other files stay."""
    for name in ("reward_model", *(f"{method}-*" for method in METHODS)):
        for folder in logs.glob(name):
            shutil.rmtree(folder)
    return logs


def in_parallel(jobs: Sequence[tuple[str, Setting]]) -> list[tuple[str, Outcome]]:
    """Every (method, setting), in order; several at once on several cores.

    The models are small: two processes with a thread each do twice the work of one with two threads.
    """
    cores = torch.get_num_threads()
    if cores == 1:
        return [(name, METHODS[name](s)) for name, s in jobs]
    workers = min(cores, len(jobs))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_worker, initargs=(cores // workers,)) as pool:
        waiting = [(name, pool.submit(METHODS[name], s)) for name, s in jobs]
        return [(name, future.result()) for name, future in waiting]


class _PlainLines(io.TextIOWrapper):
    """Standard error for several writers: whole lines, no moving bars."""

    def isatty(self) -> bool:
        return False


def _worker(threads: int) -> None:
    torch.set_num_threads(threads)
    sys.stderr = _PlainLines(open(2, "wb", closefd=False), line_buffering=True)  # noqa: SIM115


def _setting(world: AssistantWorld, sft: LanguagePolicy, reward: Any, budget: Budget, seed: int, logs: Path) -> Setting:
    """What the three methods of one seed share: fresh draws on the same test and validation prompts."""
    ruler = Ruler(
        sft,
        world.prompts("test", budget.test),
        reward,
        world.gold,
        validation=world.prompts("validation", budget.validation),
        compare=world.annotators().compare,
        sampling=budget.sampling,
        seed=1000 * (seed + 1),
    )
    return Setting(world, sft, reward, ruler, budget, seed, logs)


def _marks(prompt: Sample, text: str) -> str:
    """Gold's view of one reply, in a line."""
    sample = replace(prompt, output=text)
    parts = parts_of(text, sample.hidden)
    worst = min(("correct", "harmless", "concise", "style"), key=lambda name: parts[name])
    note = f", {worst} {parts[worst]:+.2f}" if parts[worst] < -0.05 else ""
    return f"gold {total(parts):+.2f}: helpful {parts['helpful']:.2f}{note}"


def _versions() -> dict[str, str]:
    return {
        "rewardkit": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "threads": str(torch.get_num_threads()),
    }


def _facts(figures: dict[str, Any], sft: LanguagePolicy, budget: Budget) -> list[str]:
    versions = ", ".join(f"{k} {v}" for k, v in figures["versions"].items())
    return [
        f"SFT model: a Llama of {sft.parameters:,} weights trained from scratch on the world's corpus. "
        f"{budget.test} test and {budget.validation} validation prompts, none of them trained on; one reply each at "
        "temperature 1.",
        f"Seeds {figures['seeds']}; {figures['seconds']:.0f} seconds in all. {versions}.",
        "Figures, settings and every measured point are in summary.json; the reward model and the policy at GRPO's "
        "stopping point are beside it, as transformers checkpoints.",
    ]
