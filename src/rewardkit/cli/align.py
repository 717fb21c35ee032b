"""``rewardkit align``: a policy from dialogues, from preferences, or against a reward."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

NAME = "align"
HELP = """train a policy

  sft                       imitate: completions, or the better side of comparisons
  dpo, ipo, simpo, kto      learn from comparisons; the reference is the policy as it comes
  grpo, dr_grpo, rloo, ppo, reinforce_pp
                            sample, score by --reward, reinforce; the reference is the policy as it comes

--policy is a folder, a hub name, or scratch:SIZE (llama-1m, llama-4m, llama-10m, llama-25m): a new tokenizer and a new
model, trained on the training dialogues alone. A fifth of the prompts is held out by --seed: use one seed for a chain
of runs, or a later run holds out what an earlier one has seen."""

OFFLINE = ("sft", "dpo", "ipo", "simpo", "kto")
ONLINE = ("grpo", "dr_grpo", "rloo", "ppo", "reinforce_pp")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's options."""
    parser.add_argument("data", help="comparisons, completions or prompts: a file, a folder, or a hub name")
    parser.add_argument("--policy", required=True, help="a folder, a hub name, or scratch:llama-1m")
    parser.add_argument("--objective", required=True, choices=OFFLINE + ONLINE)
    parser.add_argument("--out", required=True, help="folder for the model, summary.json and metrics")
    parser.add_argument("--reward", help="for the online objectives: a checkpoint, YAML file, file.py:function ...")
    parser.add_argument("--seed", type=int, default=0, help="of the split, the weights and the order")
    parser.add_argument("--held-out", type=float, default=0.2, help="fraction of the prompts held out")
    parser.add_argument("--lr", type=float, help="default: by objective and size of the model")
    parser.add_argument("--epochs", type=float, help="offline: walks over the data; default 1, sft from scratch 4")
    parser.add_argument("--batch", type=int, default=16, help="units an update: samples, comparisons, or prompts")
    parser.add_argument("--beta", type=float, help="of the preference loss")
    parser.add_argument(
        "--train-on", choices=("dialogue", "completion"), help="sft on texts; default: dialogue from scratch"
    )
    parser.add_argument(
        "--max-length", type=int, default=256, help="context in tokens; longer rows lose their beginning"
    )
    parser.add_argument("--vocab-size", type=int, default=2048, help="of a tokenizer from scratch")
    parser.add_argument("--micro-batch", type=int, default=16, help="rows a forward pass; speed and memory only")
    parser.add_argument("--lora", type=int, metavar="RANK", help="train a LoRA adapter of this rank")
    parser.add_argument("--steps", type=int, default=100, help="online: turns")
    parser.add_argument("--samples", type=int, help="online: outputs a prompt; default: the method's own")
    parser.add_argument("--max-new-tokens", type=int, default=64, help="online: tokens of an output")
    parser.add_argument("--kl", type=float, help="online: coefficient of the KL in the loss; default: the method's own")
    parser.add_argument("--checkpoint-every", type=int, default=100, help="updates between two checkpoints")
    parser.add_argument("--device", help="cpu, cuda ...; default: cuda where there is one")
    parser.add_argument("--limit", type=int, help="read at most so many rows")
    parser.add_argument("--on-error", choices=("raise", "skip"), default="raise", help="what a bad row does")
    parser.add_argument("--track", nargs="*", default=(), choices=("wandb", "trackio"), help="also log there")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out")


def run(args: argparse.Namespace) -> int:
    """Train, and print the summary."""
    from rewardkit.cli.common import quiet_libraries
    from rewardkit.data import read, read_judgements, read_prompts

    if args.objective in ONLINE and not args.reward:
        raise ValueError(f"--objective {args.objective} needs --reward: what is optimised")
    if args.objective in OFFLINE and args.reward:
        raise ValueError(f"--objective {args.objective} learns from the data alone and takes no --reward")
    quiet_libraries()
    finished = Path(args.out) / "summary.json"
    if args.resume and finished.is_file():
        print(f"{finished} says that this run is complete")
        return 0
    _same_split(args)
    readers: dict[str, Any] = {"sft": read, **dict.fromkeys(OFFLINE[1:], read_judgements)}
    reader = readers.get(args.objective, read_prompts)(args.data, limit=args.limit, on_error=args.on_error)
    items = list(reader)
    print(reader.report)
    if args.objective in ONLINE:
        summary = _online(items, args)
    else:
        summary = _offline(items, args)
    print(_said(summary, args))
    return 0


def _same_split(args: argparse.Namespace) -> None:
    """A policy that was trained on another split of the same data has seen what this run would hold out."""
    kept = Path(args.policy) / "summary.json"
    if not kept.is_file():
        return
    before = json.loads(kept.read_text(encoding="utf-8")).get("options", {})
    now = {"seed": args.seed, "held_out": args.held_out}
    if before.get("data") == args.data and any(before.get(k) != v for k, v in now.items()):
        raise ValueError(
            f"{args.policy} was trained on another split of {args.data} (seed {before.get('seed')}, held out "
            f"{before.get('held_out')}) and has seen prompts that this run would hold out: use the same --seed and "
            "--held-out"
        )


def _policy(args: argparse.Namespace, texts: list[str]) -> Any:
    from rewardkit.cli.common import device_of
    from rewardkit.policies.language import LanguagePolicy, train_tokenizer

    options: dict[str, Any] = {"truncation": "left", "lora": {"r": args.lora} if args.lora else None}
    kind, _, size = args.policy.partition(":")
    if kind != "scratch":
        policy = LanguagePolicy.load(args.policy, device=device_of(args.device), max_length=args.max_length, **options)
    else:
        if not texts:
            raise ValueError(
                f"--policy {args.policy} trains a tokenizer on texts, and {args.data} holds none (messages?)"
            )
        tokenizer = train_tokenizer(texts, args.vocab_size)
        policy = LanguagePolicy.scratch(
            tokenizer, size or "llama-1m", length=args.max_length, seed=args.seed, **options
        )
        policy.module.to(device_of(args.device))
    return policy


def _offline(items: list[Any], args: argparse.Namespace) -> dict[str, Any]:
    from rewardkit.training.align import Alignment, align, documents, parts_of_data

    scratch = args.policy.startswith("scratch")
    if scratch and args.objective != "sft":
        raise ValueError(
            f"--objective {args.objective} starts from a trained policy: first `rewardkit align --objective sft`"
        )
    options = Alignment(
        objective=args.objective,
        epochs=args.epochs if args.epochs is not None else (4.0 if scratch else 1.0),
        batch=args.batch,
        lr=args.lr,
        beta=args.beta,
        dialogue=(args.train_on or ("dialogue" if scratch else "completion")) == "dialogue",
        held_out=args.held_out,
        seed=args.seed,
        micro_batch=args.micro_batch,
        checkpoint_every=args.checkpoint_every,
    )
    policy = _policy(args, documents(parts_of_data(items, options)["train"]) if scratch else [])
    about = {"data": args.data, "policy": args.policy, "max_length": args.max_length}
    return align(items, policy, args.out, options, about=about, also=args.track, resume=args.resume)


def _online(prompts: list[Any], args: argparse.Namespace) -> dict[str, Any]:
    from rewardkit.data import split
    from rewardkit.loops.online import online, parts_of
    from rewardkit.loops.prompts import PromptSet
    from rewardkit.objectives.methods import METHODS
    from rewardkit.policies.language import Critic, Sampling
    from rewardkit.rewards.base import describe
    from rewardkit.rewards.load import load_reward
    from rewardkit.training import Checkpoints, Learner, Tracker, progress
    from rewardkit.training.align import default_lr
    from rewardkit.training.folder import CHECKPOINTS, claim, publish
    from rewardkit.types import Measure

    if args.policy.startswith("scratch"):
        raise ValueError(
            f"--objective {args.objective} starts from a trained policy: first `rewardkit align --objective sft`"
        )
    began, out, method = time.monotonic(), Path(args.out), METHODS[args.objective]
    policy, reward = _policy(args, []), load_reward(args.reward)
    parts = split(prompts, {"held_out": args.held_out, "train": 1 - args.held_out}, args.seed)
    if not parts["train"] or not parts["held_out"]:
        raise ValueError(
            f"{len(prompts)} prompts do not fill a training and a held-out part: give more, or another --held-out"
        )
    made = parts_of(method) | {k: v for k, v in {"n": args.samples, "kl": args.kl}.items() if v is not None}
    lr = args.lr or default_lr(policy, args.objective)
    names = (
        "objective",
        "data",
        "policy",
        "reward",
        "seed",
        "held_out",
        "batch",
        "steps",
        "max_new_tokens",
        "max_length",
    )
    settings = {**{k: getattr(args, k) for k in names}, "lr": lr, "n": made["n"], "kl": made["kl"]}
    claim(out, settings, resume=args.resume)
    sampling = Sampling(max_new_tokens=args.max_new_tokens)
    learner = Learner(policy, lr=lr, micro_batch=args.micro_batch)
    if method.needs_critic:
        made["critic"] = Learner(Critic.from_policy(policy, seed=args.seed), lr=lr, micro_batch=args.micro_batch)

    def proxy(model: Any) -> Measure:
        """The reward that is optimised, on prompts that are not: what training inflates, and no measure of quality."""
        from rewardkit.measures.intervals import average

        scores = reward(model.sample(parts["held_out"][:64], 1, sampling=sampling, seed=args.seed))
        values = scores.outcome[scores.ok].tolist() if scores.outcome is not None else []
        return average(values, invalid=len(scores) - len(values))

    with Tracker(out, also=args.track, config=settings) as tracker:
        before = proxy(policy.at("start"))
        turns = online(
            learner,
            PromptSet(parts["train"], seed=args.seed),
            reward,
            **made,
            reference="start",
            steps=args.steps,
            batch=args.batch,
            length=args.max_new_tokens,
            sampling=sampling,
            seed=args.seed,
            checkpoint=Checkpoints(out / CHECKPOINTS, every=args.checkpoint_every),
            tracker=tracker,
        )
        last: dict[str, float] = {}
        for turn in progress(turns, total=args.steps, label=args.objective, show=lambda t: describe(t.scores)):
            last = turn.metrics
        after = proxy(policy)
    summary = {
        "held_out_proxy_before": before.value,
        "held_out_proxy_after": after.value,
        "held_out_proxy_n": after.n,
        "last": {k: v for k, v in last.items() if isinstance(v, (int, float))},
        "train": len(parts["train"]),
        "held_out": len(parts["held_out"]),
        "steps": args.steps,
        "seconds": time.monotonic() - began,
        "options": settings,
    }
    publish(out, policy.save, "summary.json", summary)
    return summary


def _said(summary: dict[str, Any], args: argparse.Namespace) -> str:
    sides = f"{summary['train']} trained on, {summary['held_out']} held out by prompt (seed {args.seed})"
    if args.objective == "sft":
        figures = (
            f"held-out loss {summary['nll']:.3f} nats a token (perplexity {summary['perplexity']:.1f}), training "
            f"{summary['train_nll']:.3f}"
        )
    elif args.objective in ONLINE:
        figures = (
            f"proxy reward on held-out prompts {summary['held_out_proxy_before']:.3f} before, "
            f"{summary['held_out_proxy_after']:.3f} after; it is what was optimised, and no measure of quality"
        )
    elif summary.get("accuracy") is None:
        figures = "no comparisons are held out: no accuracy"
    else:
        figures = (
            f"held-out implicit-reward accuracy {summary['accuracy']:.3f} [{summary['accuracy_low']:.3f}, "
            f"{summary['accuracy_high']:.3f}], 'the {summary['length_rule']} one wins' {summary['length_only']:.3f}, "
            f"on training pairs {summary['train_accuracy']:.3f}"
        )
    return f"{sides}\n{figures}\n{args.out}: {summary['steps']} updates, {summary['seconds']:.0f} s"
