"""``rewardkit score``: a score for each row of prompts and completions."""

from __future__ import annotations

import argparse
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rewardkit.types import Sample, Scores

NAME = "score"
HELP = """score rows of prompts and completions

Each line of the output is the row with score (null where there is none), status (ok, error, missing), why (a grader's
message) and parts (the components of a composed reward). Rows are written as they are scored, to FILE.partial, which
becomes FILE when all are done; --resume goes on with what FILE.partial holds."""

STATUS = ("ok", "error", "missing")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("data", help="rows with prompt and completion (or messages): a file, a folder, or a hub name")
    parser.add_argument(
        "--reward", required=True, help="a checkpoint folder, hub name, YAML file, file.py:function ..."
    )
    parser.add_argument("--out", required=True, help="JSONL file for the scored rows")
    parser.add_argument("--batch", type=int, default=256, help="rows scored at once; rows of one prompt stay together")
    parser.add_argument("--limit", type=int, help="read at most so many rows")
    parser.add_argument("--on-error", choices=("raise", "skip"), default="raise", help="what a bad row does")
    parser.add_argument("--resume", action="store_true", help="go on with FILE.partial")


def run(args: argparse.Namespace) -> int:
    """Score, writing line by line."""
    from rewardkit.cli.common import quiet_libraries
    from rewardkit.data import read
    from rewardkit.rewards.load import load_reward
    from rewardkit.training.progress import progress

    quiet_libraries()
    out = Path(args.out)
    if not args.out.endswith(".jsonl"):
        raise ValueError(f"--out must end with .jsonl, not {args.out!r}")
    if out.is_file() and args.resume:
        print(f"{out} is complete")
        return 0
    partial = out.with_name(out.name + ".partial")
    done = _whole_lines(partial) if args.resume else 0
    reward = load_reward(args.reward)
    reader = read(args.data, limit=args.limit, on_error=args.on_error, keep_duplicates=True)
    samples = progress(itertools.islice(_samples(reader, args.data), done, None), label="rows")
    counts = [0, 0, 0]
    out.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("a" if args.resume else "w", encoding="utf-8") as file:
        for scored in score_stream(reward, samples, batch=args.batch):
            for sample, row in scored:
                file.write(json.dumps({**_columns(sample), **row}, ensure_ascii=False) + "\n")
                counts[STATUS.index(row["status"])] += 1
            file.flush()
    os.replace(partial, out)
    print(reader.report)
    failed = f", {counts[1]} errors, {counts[2]} missing" if counts[1] + counts[2] else ""
    print(f"{out}: {counts[0]} scored{failed}" + (f", {done} were there" if done else ""))
    return 0


def saved(args: argparse.Namespace) -> str:
    """What an interrupted run leaves behind."""
    return f"{args.out}.partial keeps the rows scored so far; add --resume to go on"


def score_stream(
    reward: Any, samples: Iterator[Sample], *, batch: int
) -> Iterator[list[tuple[Sample, dict[str, Any]]]]:
    """Samples with what the reward says of them, ``batch`` rows at once; neighbours with one prompt are one group."""
    import torch

    from rewardkit.types import Rollout

    waiting: list[list[Sample]] = []
    groups = (list(g) for _, g in itertools.groupby(samples, key=lambda s: json.dumps(s.asked, default=str)))
    for group in itertools.chain(groups, [[]]):
        if waiting and (not group or (sum(map(len, waiting)) >= batch and reward.scope != "batch")):
            rows = [s for g in waiting for s in g]
            number = torch.tensor([i for i, g in enumerate(waiting) for _ in g])
            scores = reward(Rollout(rows, torch.ones(len(rows), 1), group=number))
            yield [(s, row_of(scores, i)) for i, s in enumerate(rows)]
            waiting = []
        waiting.append(group)


def row_of(scores: Scores, row: int) -> dict[str, Any]:
    """What a score says of one row, as JSON."""
    status = int(scores.status[row])
    found: dict[str, Any] = {"score": _number(scores, row), "status": STATUS[status]}
    if scores.why is not None and scores.why[row]:
        found["why"] = scores.why[row]
    if scores.parts:
        found["parts"] = {name: _number(part, row) for name, part in scores.parts.items()}
    return found


def _number(scores: Scores, row: int) -> float | None:
    return float(scores.outcome[row]) if scores.outcome is not None and bool(scores.ok[row]) else None


def _samples(items: Iterator[Any] | Any, name: str) -> Iterator[Sample]:
    for item in items:
        if not isinstance(item, Sample) or item.output is None:
            raise ValueError(
                f"{name}: rows with prompt and completion (or messages) are wanted; comparisons are for `rewardkit "
                "eval pairwise`, prompts alone have nothing to score"
            )
        yield item


def _columns(sample: Sample) -> dict[str, Any]:
    found: dict[str, Any] = {"prompt": sample.prompt, "completion": sample.output, **sample.hidden}
    found |= {} if sample.source is None else {"source": sample.source}
    return found if sample.ended == "done" else found | {"ended": sample.ended}


def _whole_lines(path: Path) -> int:
    """Lines that a killed run wrote whole; a last one that was cut off is removed."""
    if not path.is_file():
        return 0
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        path.write_bytes(whole)
    return whole.count(b"\n")
