"""A scalar reward model from comparisons, judged on prompts that it never saw."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from rewardkit.data.dialogue import characters
from rewardkit.data.rows import attach, comparison_rows
from rewardkit.data.split import split
from rewardkit.measures.length import Rule, best_rule
from rewardkit.measures.pairs import PairReport, summarise
from rewardkit.needs import Column
from rewardkit.objectives.reward import bradley_terry
from rewardkit.registry import entry
from rewardkit.rewards.learned.scalar import ScalarReward
from rewardkit.rewards.scoring import better_pairs, compare
from rewardkit.training.checkpoint import Checkpoints
from rewardkit.training.fit import fit
from rewardkit.training.folder import CHECKPOINTS, publish, run_in, updates_left
from rewardkit.training.items import counted, data_digest, prompt_digests
from rewardkit.training.learner import Learner
from rewardkit.training.progress import progress
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
        held_out: fraction of the prompts that is held out. seed: of the split, of the order and of dropout.
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
    about: Mapping[str, Any] | None = None,
    also: Sequence[str] = (),
    resume: bool = False,
) -> FittedReward:
    """Fit ``reward`` by Bradley-Terry on comparisons and evaluate it on held-out prompts.

    A comparison counts by its ``weight``; one of weight 0 is as if it were not there, held out or not. Its
    ``strength`` is not used: a margin is ``partial(bradley_terry, margin=Column("strength", of="better"))``, with
    :func:`rewardkit.training.fit.fit`.

    ``out`` gets the checkpoint (loadable by transformers), ``fit.json``, ``metrics.jsonl`` and TensorBoard's files.
    The checkpoint appears when the run is complete; until then ``out/checkpoints`` holds what a resumed run needs.

    Args:
        judgements: pairs or k-way; a comparison without a better and a worse side trains nothing.
        reward: with a new head, or one to go on with. Its weights are changed.
        out: a new folder, or that of the run to resume. options: default: :class:`RewardFit`.
        about: what else is of this run, such as the backbone's name; put into ``fit.json``.
        also: ``wandb``, ``trackio``. resume: go on with the run in ``out``.

    Raises:
        ValueError: for too few comparisons, a folder with another run, or other options, comparisons or ``about``
            than the resumed run had.
        ImportError: for a service of ``also`` that is not installed.

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
    judgements = counted(judgements)
    parts = _parts(judgements, options)
    same = {"comparisons": len(judgements), "data_digest": data_digest(judgements), "max_length": reward.max_length}
    settings = {**asdict(options), **same, **(about or {})}
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
    every = options.evaluate_every if early else options.checkpoint_every

    def encode(units: list[Judgement]) -> Rollout:
        # Neighbours of like length share a forward pass; the gradient does not depend on the order.
        units = sorted(units, key=lambda j: max(characters(s.prompt) + characters(s.output) for s in j.items))
        rows = comparison_rows(units)
        return attach(reward.encode(rows.samples), rows)

    def validate(_: Any) -> dict[str, Measure]:
        return {"accuracy": summarise(compare(reward, parts["validation"])).accuracy}

    with run_in(out, settings, ranks=learner.ranks, also=also, resume=resume) as tracker:
        checkpoints = Checkpoints(out / CHECKPOINTS, every=every, best=best)
        before = checkpoints.last()
        step, stopped = int(before["step"]), bool(before.get("stopped", False))
        steps = fit(
            learner,
            parts["train"],
            partial(bradley_terry, weight=Column("weight", of="better")),
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
        learner.ranks.wait()
        if early:
            checkpoints.load_best("learner", learner)
        report = summarise(compare(reward, parts["held_out"]), rule=length_rule(parts["train"]))
        if tracker is not None:
            numbers = {f"held_out/{k}": v for k, v in report.flat().items() if isinstance(v, (int, float))}
            tracker.conclude(step, numbers)
    found = FittedReward(
        report=report,
        train=len(parts["train"]),
        held_out=len(parts["held_out"]),
        steps=step,
        stopped=stopped,
        truncated=_truncated(reward, parts["held_out"]),
        seconds=time.monotonic() - began,
    )
    said = {k: getattr(found, k) for k in ("train", "held_out", "steps", "stopped", "truncated", "seconds")}
    summary = {**found.report.flat(), **said, "options": settings}
    trained_on = prompt_digests(parts["train"])
    publish(out, reward.save, "fit.json", summary, ranks=learner.ranks, trained_on=trained_on)
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


def length_rule(judgements: Sequence[Judgement]) -> Rule:
    """The length rule that is right more often on these comparisons, the training ones."""
    sizes = [
        (characters(j.items[i].output), characters(j.items[k].output))
        for j in judgements
        for i, k in better_pairs(j)[0]
    ]
    return best_rule(torch.tensor(sizes, dtype=torch.long).reshape(-1, 2))


def _truncated(reward: ScalarReward, judgements: Sequence[Judgement]) -> float:
    """Fraction of the rows that are as long as a row may be, and so have lost their beginning, or just fit."""
    sizes = [len(ids) for j in judgements for ids in reward.encode(j.items).inputs["ids"]]
    return sum(size >= reward.max_length for size in sizes) / len(sizes)
