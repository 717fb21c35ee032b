"""``rewardkit demo``: the whole loop on an embedded world, and a report of where it stopped being worth it."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

NAME = "demo"
HELP = (
    "The whole loop on world assistant: SFT, reward model, GRPO, DPO, best of n; writes report.html and summary.json."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--out", default="demo", metavar="DIR", help="where the report goes (default: demo)")
    parser.add_argument(
        "--seeds", type=int, default=1, help="repeat all after the reward model this often (default: 1)"
    )
    parser.add_argument("--seed", type=int, default=0, help="the first seed (default: 0)")
    parser.add_argument(
        "--smoke", action="store_true", help="the same code on next to no data; its figures mean nothing"
    )


def run(args: argparse.Namespace) -> int:
    """Run the demo and write its files."""
    if args.seeds < 1:
        raise ValueError(f"--seeds: at least 1, not {args.seeds}")
    from rewardkit.cli.demo.pipeline import SMOKE, Budget
    from rewardkit.cli.demo.stages import demo

    began = time.perf_counter()
    out = Path(args.out)
    budget = SMOKE if args.smoke else Budget()
    seeds = list(range(args.seed, args.seed + args.seeds))
    summary = demo(out, budget, seeds, began)
    print(f"reward model: {summary['rm_accuracy']:.3f} accurate; gold itself {summary['rm_accuracy_ceiling']:.3f}")
    for name in ("grpo", "dpo", "best_of_n"):
        f = summary[name]
        print(
            f"{name:9}  gold {f['gold_before']:+.2f} -> {f['gold_after']:+.2f} (largest {f['gold_peak']:+.2f}), "
            f"win rate {f['gold_winrate_vs_sft']:.1%}, KL {f['kl_at_stop']:.1f} nats"
        )
    print(f"{out / 'report.html'} and {out / 'summary.json'} after {summary['seconds']:.0f} s")
    return 0
