"""A scalar reward model from comparisons, judged on prompts that it never saw."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from rewardkit.data.dialogue import characters
from rewardkit.data.rows import attach, comparison_rows
from rewardkit.data.split import split
from rewardkit.measures.length import Rule, best_rule
from rewardkit.measures.pairs import PairReport, summarise
from rewardkit.objectives.reward import bradley_terry
from rewardkit.registry import entry
from rewardkit.rewards.learned.scalar import ScalarReward
from rewardkit.rewards.scoring import better_pairs, compare
from rewardkit.training.checkpoint import Checkpoints
from rewardkit.training.fit import fit
from rewardkit.training.folder import CHECKPOINTS, claim, publish, updates_left
from rewardkit.training.learner import Learner
from rewardkit.training.progress import progress
from rewardkit.training.tracking import Tracker
from rewardkit.types import Judgement, Measure, Rollout

VALIDATION = 0.1
"""Fraction of all prompts on which early stopping looks, taken from the training side: never the held-out one."""


@dataclass(frozen=True)
class RewardFit:
    """How a reward model is fitted; the defaults fine-tune a small encoder in minutes on two cores.

    Args:
        epochs: walks over the training comparisons. batch: comparisons an update.
        lr, weight_decay, warmup: of AdamW; the rate rises over the fraction ``warmup`` and falls linearly to 0.
        dropout: whether the backbone's own dropout is on while it trains.
        held_out: fraction of the prompts that is held out. seed: of the split and of the order.
        micro_batch: rows a forward pass; it changes speed and memory, never the result.
        patience, evaluate_every: stop when the accuracy on a validation tenth of the prompts, taken from the training
            side, has not risen in ``patience`` looks, one every ``evaluate_every`` updates; the best weights are kept.
            ``None``: no early stopping and no validation.
        checkpoint_every: updates between two checkpoints.
    """

    epochs: float = 1.0
    batch: int = 16
    lr: float = 3e-5
    weight_decay: float = 0.01
    warmup: float = 0.1
    dropout: bool = False
    held_out: float = 0.2
    seed: int = 0
    micro_batch: int = 8
    patience: int | None = None
    evaluate_every: int = 20
    checkpoint_every: int = 50

    def __post_init__(self) -> None:
        spare = VALIDATION if self.patience is not None else 0.0
        if not 0 < self.held_out < 1 - spare:
            raise ValueError(f"held_out is a fraction above 0 and below {1 - spare}, not {self.held_out}")


@dataclass(frozen=True)
class FittedReward:
    """What :func:`fit_reward` found.

    Args:
        report: on the held-out comparisons. train, held_out: comparisons of each side. steps: updates.
        stopped: early stopping ended the run. truncated: fraction of held-out rows that lost their beginning.
        seconds: what it took, evaluation included, resumed time not.
    """

    report: PairReport
    train: int
    held_out: int
    steps: int
    stopped: bool
    truncated: float
    seconds: float


@entry(
    "training:fit_reward",
    tags=("reward-model", "offline"),
    source="Ouyang et al. 2022, arXiv 2203.02155, section 3.5; Stiennon et al. 2020, arXiv 2009.01325",
)
def fit_reward(
    judgements: Sequence[Judgement],
    reward: ScalarReward,
    out: str | Path,
    options: RewardFit | None = None,
    *,
    also: Sequence[str] = (),
    resume: bool = False,
) -> FittedReward:
    """Fit ``reward`` by Bradley-Terry on comparisons and evaluate it on held-out prompts.

    ``out`` gets the checkpoint (loadable by transformers), ``fit.json``, ``metrics.jsonl`` and TensorBoard's files.
    The checkpoint appears when the run is complete; until then ``out/checkpoints`` holds what a resumed run needs.

    Args:
        judgements: pairs or k-way; a comparison without a better and a worse side trains nothing.
        reward: with a new head, or one to go on with. Its weights are changed.
        out: a new folder, or that of the run to resume. options: default: :class:`RewardFit`.
        also: ``wandb``, ``trackio``. resume: go on with the run in ``out``.

    Raises:
        ValueError: for too few comparisons, a folder with another run, or other options than the resumed run had.

    >>> import tempfile
    >>> from transformers import BertConfig, BertForSequenceClassification
    >>> from rewardkit.policies.language.tokenizer import train_tokenizer
    >>> from rewardkit.types import Sample
    >>> tokenizer = train_tokenizer(["good bad"] * 9, vocab_size=300)
    >>> config = BertConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
    ...     intermediate_size=32, num_labels=1)
    >>> reward = ScalarReward(BertForSequenceClassification(config), tokenizer)
    >>> judged = [Judgement((Sample(f"{i}:", "good"), Sample(f"{i}:", "bad")), rank=(0, 1)) for i in range(40)]
    >>> found = fit_reward(judged, reward, tempfile.mkdtemp(), RewardFit(lr=3e-2, epochs=3))
    >>> found.report.accuracy.value
    1.0
    """
    began, options, out = time.monotonic(), options or RewardFit(), Path(out)
    parts = _parts(judgements, options)
    settings = {**asdict(options), "comparisons": len(judgements), "max_length": reward.max_length}
    claim(out, settings, resume=resume)
    learner = Learner(
        reward,
        lr=options.lr,
        weight_decay=options.weight_decay,
        schedule="linear",
        warmup=options.warmup,
        micro_batch=options.micro_batch,
        dropout=options.dropout,
    )
    early = options.patience is not None
    best = "accuracy" if early else None
    checkpoints = Checkpoints(
        out / CHECKPOINTS, every=options.evaluate_every if early else options.checkpoint_every, best=best
    )

    def encode(units: list[Judgement]) -> Rollout:
        # Neighbours of like length share a forward pass; the gradient does not depend on the order.
        units = sorted(units, key=lambda j: max(characters(s.prompt) + characters(s.output) for s in j.items))
        rows = comparison_rows(units)
        return attach(reward.encode(rows.samples), rows)

    def validate(_: Any) -> dict[str, Measure]:
        return {"accuracy": summarise(compare(reward, parts["validation"])).accuracy}

    step, stopped = 0, False
    with Tracker(out, also=also, config=settings) as tracker:
        steps = fit(
            learner,
            parts["train"],
            bradley_terry,
            encode=encode,
            epochs=options.epochs,
            batch=options.batch,
            seed=options.seed,
            evaluate=validate if early else None,
            evaluate_every=options.evaluate_every if early else None,
            best=best,
            patience=options.patience,
            checkpoint=checkpoints,
            tracker=tracker,
        )
        total = updates_left(options.epochs * math.ceil(len(parts["train"]) / options.batch), checkpoints)
        for done in progress(steps, total=total, label="fit", show=lambda s: {"loss": s.metrics["loss"]}):
            step, stopped = done.step, done.stopped
        kept = checkpoints.best() if early else None
        if kept is not None:
            checkpoints.load(kept, {"learner": learner}, rng=False)
        report = summarise(compare(reward, parts["held_out"]), rule=_length_rule(parts["train"]))
        step = step or learner.steps
        tracker.log(step, {f"held_out/{k}": v for k, v in report.flat().items() if isinstance(v, (int, float))})
    found = FittedReward(
        report=report,
        train=len(parts["train"]),
        held_out=len(parts["held_out"]),
        steps=step,
        stopped=stopped,
        truncated=_truncated(reward, parts["held_out"]),
        seconds=time.monotonic() - began,
    )
    numbers = {k: getattr(found, k) for k in ("train", "held_out", "steps", "stopped", "truncated", "seconds")}
    publish(out, reward.save, "fit.json", {**found.report.flat(), **numbers, "options": settings})
    return found


def _parts(judgements: Sequence[Judgement], options: RewardFit) -> dict[str, list[Judgement]]:
    """Comparisons by side; a prompt is on one side alone."""
    spare = {"validation": VALIDATION} if options.patience is not None else {}
    fractions = {"held_out": options.held_out, **spare}
    parts = split(judgements, {**fractions, "train": 1 - sum(fractions.values())}, options.seed)
    for name, part in parts.items():
        if not any(better_pairs(j)[0] for j in part):
            raise ValueError(
                f"of {len(judgements)} comparisons none with a better and a worse side is in the part {name!r}; give "
                "more comparisons, or another held_out fraction"
            )
    return parts


def _length_rule(judgements: Sequence[Judgement]) -> Rule:
    """The length rule that is right more often on the training pairs."""
    sizes = [
        (characters(j.items[i].output), characters(j.items[k].output))
        for j in judgements
        for i, k in better_pairs(j)[0]
    ]
    return best_rule(torch.tensor(sizes))


def _truncated(reward: ScalarReward, judgements: Sequence[Judgement]) -> float:
    """Fraction of the rows that are as long as a row may be, and so have lost their beginning, or just fit."""
    sizes = [len(ids) for j in judgements for ids in reward.encode(j.items).inputs["ids"]]
    return sum(size >= reward.max_length for size in sizes) / len(sizes)
