"""``rewardkit eval``: how far a reward can be trusted."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rewardkit.protocols import Reward
    from rewardkit.types import Judgement, Measure, Rollout, Scores

NAME = "eval"
HELP = """evaluate a reward on comparisons or on a published benchmark

  pairwise   any file of comparisons: accuracy, calibration, length bias
  llmbar     instruction following (the work's Dataset folder, or one with a file a subset)
  rm_bench   subtlety and style (the work's data folder, or one with a file a subset)

A benchmark's subsets are reported as they are found; parts of a benchmark have no overall score."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("benchmark", choices=tuple(RUNS), help="what to evaluate on")
    parser.add_argument(
        "--reward", required=True, help="a checkpoint folder, hub name, YAML file, file.py:function ..."
    )
    parser.add_argument("--data", required=True, help="the file of comparisons, or the benchmark's folder")
    parser.add_argument("--json", metavar="FILE", help="also write the figures there")
    parser.add_argument("--limit", type=int, help="pairwise: read at most so many comparisons")
    parser.add_argument("--on-error", choices=("raise", "skip"), default="raise", help="pairwise: what a bad row does")


def run(args: argparse.Namespace) -> int:
    """Evaluate, print, and write the figures."""
    from rewardkit.cli.common import quiet_libraries
    from rewardkit.data.whole import write_json
    from rewardkit.rewards.load import load_reward

    quiet_libraries()
    reward = Heard(load_reward(args.reward))
    found, scored, unscored = RUNS[args.benchmark](reward, args)
    if not scored + unscored:
        raise ValueError(f"{args.data}: holds no rows")
    if not scored:
        raise ValueError(f"{args.data}: none of {unscored} rows could be scored; the first: {reward.complaint}")
    if args.json:
        write_json(args.json, {"benchmark": args.benchmark, "reward": args.reward, "data": args.data, **found})
    return 0


class Heard:
    """A reward that keeps what it first said of an output that it could not score."""

    def __init__(self, reward: Reward) -> None:
        self.reward, self.name, self.scope = reward, reward.name, reward.scope
        self.complaint: str | None = None

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        scores = self.reward(rollout, ctx)
        if self.complaint is None and not bool(scores.ok.all()):
            why = scores.why[int((~scores.ok).nonzero()[0])] if scores.why else None
            self.complaint = why or f"reward {self.name!r} gave no reason"
        return scores


Found = tuple[dict[str, Any], int, int]
"""Figures for the JSON file, rows that were scored, rows that were not."""


def _pairwise(reward: Reward, args: argparse.Namespace) -> Found:
    from rewardkit.data import read_judgements
    from rewardkit.evals.pairwise import pairwise
    from rewardkit.training.items import prompt_digests, seen_by
    from rewardkit.training.progress import progress

    reader = read_judgements(args.data, limit=args.limit, on_error=args.on_error)
    seen, trained = seen_by(args.reward), set[str]()

    def noting() -> Iterator[Judgement]:
        for judgement in progress(reader, label="comparisons"):
            trained.update(prompt_digests([judgement]) & seen if seen else ())
            yield judgement

    report = pairwise(reward, noting())
    if not report.accuracy.n and not report.accuracy.invalid:
        raise ValueError(f"{args.data}: no comparison with a better and a worse side was read\n{reader.report}")
    print(reader.report)
    print(report)
    if trained:
        print(
            f"{args.reward} was trained on {len(trained)} of these prompts: this is no measure of how it does on others"
        )
    figures = {**report.flat(), "skipped": dict(reader.report.skipped), "prompts_trained_on": len(trained)}
    return figures, report.accuracy.n, report.accuracy.invalid


def _llmbar(reward: Reward, args: argparse.Namespace) -> Found:
    from rewardkit.evals.llmbar import SUBSETS, llmbar

    found = llmbar(reward, args.data)
    print("LLMBar, accuracy by subset with its 95% interval:")
    for name, measure in found.items():
        low, high = measure.ci or (float("nan"), float("nan"))
        left_out = f"  ({measure.invalid} unscored)" if measure.invalid else ""
        print(f"  {name:<22} {measure.value:.3f}  [{low:.3f}, {high:.3f}]  n {measure.n}{left_out}")
    figures = {"subsets": {name: _flat(m) for name, m in found.items()}, "absent": _absent(SUBSETS, found)}
    return figures, *_counts(found.values())


def _rm_bench(reward: Reward, args: argparse.Namespace) -> Found:
    from rewardkit.evals.rm_bench import STYLES, SUBSETS, rm_bench

    found = rm_bench(reward, args.data)
    print("RM-Bench, accuracy by subset with its 95% interval over prompts:")
    for name, matrix in found.items():
        print(f"  {name}, n {matrix.easy.n}" + (f" ({matrix.easy.invalid} unscored)" if matrix.easy.invalid else ""))
        for level in ("easy", "normal", "hard"):
            measure = getattr(matrix, level)
            low, high = measure.ci or (float("nan"), float("nan"))
            print(f"    {level:<8} {measure.value:.3f}  [{low:.3f}, {high:.3f}]")
    subsets = {
        name: {
            **{level: _flat(getattr(matrix, level)) for level in ("easy", "normal", "hard")},
            "matrix": matrix.wins.tolist(),
            "styles": list(STYLES),
            "ties": matrix.ties,
        }
        for name, matrix in found.items()
    }
    return {"subsets": subsets, "absent": _absent(SUBSETS, found)}, *_counts(m.easy for m in found.values())


def _counts(measures: Iterable[Measure]) -> tuple[int, int]:
    """Rows scored and not, over all subsets."""
    both = [(m.n, m.invalid) for m in measures]
    return sum(n for n, _ in both), sum(bad for _, bad in both)


def _absent(subsets: tuple[str, ...], found: dict[str, Any]) -> list[str]:
    absent = [s for s in subsets if s not in found]
    if absent:
        print(f"not in this folder: {', '.join(absent)}; no overall score")
    return absent


def _flat(measure: Measure) -> dict[str, Any]:
    low, high = measure.ci or (None, None)
    return {"accuracy": measure.value, "low": low, "high": high, "n": measure.n, "unscored": measure.invalid}


RUNS = {"pairwise": _pairwise, "llmbar": _llmbar, "rm_bench": _rm_bench}
