"""``rewardkit score``: a score for each row of prompts and completions."""

from __future__ import annotations

import argparse
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rewardkit.types import Judgement, Sample, Scores

NAME = "score"
HELP = """score rows of prompts and completions

Each line of the output is the row with score (null where there is none), status (ok, error, missing), why (a grader's
message) and parts (the components of a composed reward). Rows are written as they are scored, to FILE.partial, which
becomes FILE when all are done; --resume goes on with what FILE.partial holds. FILE.options says by which command. A row
that comes with a label or score of its own keeps it as rating."""

STATUS = ("ok", "error", "missing")
"""Names of the statuses of :class:`rewardkit.types.Scores`, by their number."""


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
    from rewardkit.data.whole import write_json
    from rewardkit.rewards.load import load_reward
    from rewardkit.rewards.ops import TooManyErrorsError
    from rewardkit.training.folder import same_options
    from rewardkit.training.progress import progress

    quiet_libraries()
    out = Path(args.out)
    if not args.out.endswith(".jsonl"):
        raise ValueError(f"--out must end with .jsonl, not {args.out!r}")
    partial, kept = out.with_name(out.name + ".partial"), out.with_name(out.name + ".options")
    settings = {name: getattr(args, name) for name in ("data", "reward", "batch")}
    if args.resume and kept.is_file():
        same_options(kept, settings)
    if args.resume and out.is_file() and not partial.is_file():
        print(f"{out} is complete")
        return 0
    for found in (out, partial):
        if not args.resume and found.is_file():
            raise ValueError(f"{found} already holds scores: add --resume to go on, remove it, or name another --out")
    reward = load_reward(args.reward)
    write_json(kept, settings)
    before = _whole_rows(partial) if args.resume else []
    done, counts = len(before), Counter(row["status"] for row in before)
    first = next((row["why"] for row in before if "why" in row), None)
    reader = read(args.data, limit=args.limit, on_error=args.on_error, keep_duplicates=True)
    samples = progress(itertools.islice(_samples(reader, args.data), done, None), label="rows")
    with partial.open("a" if args.resume else "w", encoding="utf-8") as file:
        for scored in score_stream(reward, samples, batch=args.batch):
            for sample, row in scored:
                file.write(json.dumps({**_columns(sample), **row}, ensure_ascii=False) + "\n")
                counts[row["status"]] += 1
                first = first or row.get("why")
            file.flush()
    print(reader.report)
    if not counts["ok"]:
        partial.unlink()
        kept.unlink()
        raise TooManyErrorsError(
            f"{args.reward} scored none of the rows of {args.data} ({counts['error']} errors, {counts['missing']} "
            f"missing){f'; the first says: {first}' if first else ''}. {out} is not written: mend the reward"
        )
    os.replace(partial, out)
    failed = f", {counts['error']} errors, {counts['missing']} missing" if counts["error"] + counts["missing"] else ""
    print(f"{out}: {counts['ok']} scored{failed}" + (f", {done} were there" if done else ""))
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
        if isinstance(item, Judgement) and len(item.items) == 1:
            sample, rating = item.items[0], item.rating
            item = sample if rating is None else replace(sample, hidden={**sample.hidden, "rating": rating[0]})
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


def _whole_rows(path: Path) -> list[dict[str, Any]]:
    """Rows that a killed run wrote whole; a last one that was cut off is removed."""
    if not path.is_file():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        path.write_bytes(whole)
    return [json.loads(line) for line in whole.splitlines()]
