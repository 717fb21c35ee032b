"""A policy optimised against a reward, from prompts to a folder with the model and what is to be known of it."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rewardkit.data.split import split
from rewardkit.loops.evaluate import mean_score
from rewardkit.loops.online import Step, online, parts_of
from rewardkit.loops.prompts import PromptSet
from rewardkit.objectives.methods import METHODS
from rewardkit.policies.language import Critic, LanguagePolicy, Sampling
from rewardkit.protocols import Reward
from rewardkit.rewards.base import describe
from rewardkit.training.align import default_lr
from rewardkit.training.checkpoint import Checkpoints
from rewardkit.training.folder import CHECKPOINTS, publish, run_in, updates_left
from rewardkit.training.held_out import HeldOut, measure
from rewardkit.training.items import check_unseen, data_digest, prompt_digests
from rewardkit.training.learner import Learner
from rewardkit.training.progress import progress
from rewardkit.training.rollout_log import rollout_page, write_rollouts
from rewardkit.training.tracking import read_metrics
from rewardkit.types import Sample

MEASURED = 64
"""Held-out prompts that are answered and scored at each evaluation."""


@dataclass(frozen=True)
class Reinforcement:
    """How a policy is optimised against a reward.

    Args:
        objective: a published method, one of :data:`rewardkit.objectives.methods.METHODS`.
        steps, batch: turns; prompts a turn. n, kl: outputs a prompt, and coefficient of the KL in the loss; ``None``
            takes the method's own. lr: ``None`` takes :func:`rewardkit.training.align.default_lr`.
        max_new_tokens: of an output.
        held_out: fraction of the prompts that is held out. seed: of the split, the order and the sampling.
        micro_batch: rows a forward pass.
        evaluate_every: turns between two evaluations on held-out prompts; ``None``: a tenth of ``steps``.
        checkpoint_every: turns between two checkpoints, where no metric picks the best of them.
        ahead: 1 samples the next turn's batch while the reward is computed, see
            :func:`rewardkit.loops.online.online`.
    """

    objective: str = "grpo"
    steps: int = 100
    batch: int = 16
    n: int | None = None
    kl: float | None = None
    lr: float | None = None
    max_new_tokens: int = 64
    held_out: float = 0.2
    seed: int = 0
    micro_batch: int = 16
    evaluate_every: int | None = None
    checkpoint_every: int = 100
    ahead: int = 0

    def __post_init__(self) -> None:
        if self.objective not in METHODS:
            raise ValueError(f"objective must be one of {', '.join(METHODS)}, not {self.objective!r}")
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out is a fraction between 0 and 1, not {self.held_out}")
        if self.steps < 1 or (self.evaluate_every is not None and self.evaluate_every < 1):
            raise ValueError(f"steps and evaluate_every are at least 1, not {self.steps} and {self.evaluate_every}")


def align_online(
    prompts: Sequence[Sample],
    policy: LanguagePolicy,
    reward: Reward,
    out: str | Path,
    options: Reinforcement,
    *,
    metric: Reward | None = None,
    seen: Collection[str] = (),
    about: Mapping[str, Any] | None = None,
    also: Sequence[str] = (),
    resume: bool = False,
) -> dict[str, Any]:
    """Optimise a policy against a reward on the training prompts, and say how it does on the held-out ones.

    ``out`` gets what :func:`rewardkit.training.align.align` puts there, and ``rollouts.jsonl`` and ``rollouts.html``,
    the outputs of the turn that was evaluated last, to be read.

    Args:
        prompts: with the hidden columns that the rewards read. policy: its weights are changed; the reference is what
            they are now.
        reward: what is optimised. Its score on held-out prompts, ``proxy``, is what training inflates, and no measure
            of quality.
        metric: a reward that is measured on held-out prompts and never trained on. The checkpoint where it is best is
            published; there is one at every evaluation then. ``None``: the last weights are published.
        out, options, seen, about, also, resume: as in :func:`rewardkit.training.align.align`.

    Returns:
        The summary: for ``proxy``, and ``metric`` if there is one, the held-out score ``before`` and ``after``, of the
        published weights; ``published``, their turn; the ``last`` turn's metrics.

    Raises:
        ValueError: as :func:`rewardkit.training.align.align`, or if a side of the split is empty.
        TooManyErrorsError: if the reward fails on more than a quarter of a batch.
    """
    began, out, method = time.monotonic(), Path(out), METHODS[options.objective]
    settings = {**asdict(options), "rows": len(prompts), "data_digest": data_digest(prompts), **(about or {})}
    parts = split(prompts, {"held_out": options.held_out, "train": 1 - options.held_out}, options.seed)
    if not parts["train"] or not parts["held_out"]:
        raise ValueError(
            f"{len(prompts)} prompts do not fill a training and a held-out part: give more, or another held_out"
        )
    check_unseen(seen, parts["held_out"], policy.name)
    lr = default_lr(policy, options.objective) if options.lr is None else options.lr
    given = {k: v for k, v in {"n": options.n, "kl": options.kl}.items() if v is not None}
    made = parts_of(method) | given
    learner = Learner(policy, lr=lr, micro_batch=options.micro_batch)
    if method.needs_critic:
        critic = Critic.from_policy(policy, seed=options.seed)
        made["critic"] = Learner(critic, lr=lr, micro_batch=options.micro_batch)
    sampling = Sampling(max_new_tokens=options.max_new_tokens)
    measured = {"proxy": reward} | ({"metric": metric} if metric is not None else {})
    held_out: HeldOut = {
        name: mean_score(parts["held_out"][:MEASURED], judge, sampling=sampling, seed=options.seed)
        for name, judge in measured.items()
    }
    every = options.evaluate_every or max(1, options.steps // 10)
    with run_in(out, settings, ranks=learner.ranks, also=also, resume=resume) as tracker:
        checkpoints = Checkpoints(
            out / CHECKPOINTS,
            every=options.checkpoint_every if metric is None else every,
            best=None if metric is None else "metric",
        )
        turns = online(
            learner,
            PromptSet(parts["train"], seed=options.seed),
            reward,
            **made,
            reference="start",
            steps=options.steps,
            batch=options.batch,
            length=options.max_new_tokens,
            sampling=sampling,
            held_out=held_out,
            held_out_every=every,
            seed=options.seed,
            ahead=options.ahead,
            checkpoint=checkpoints,
            tracker=tracker,
        )
        left = updates_left(options.steps, checkpoints)
        for turn in progress(turns, total=left, label=options.objective, show=_shown):
            if turn.held_out is not None and tracker is not None:
                _show(out, turn, policy)
        learner.ranks.wait()
        best = None if metric is None else checkpoints.load_best("learner", learner)
        after = measure(policy, held_out)
    rows = read_metrics(out / "metrics.jsonl")
    summary: dict[str, Any] = {}
    for name, found in after.items():
        summary |= {f"held_out_{name}_before": rows[0][f"held_out/{name}"], f"held_out_{name}_after": found.value}
        summary[f"held_out_{name}_n"] = found.n
    summary |= {
        "published": options.steps if best is None else best,
        "last": {k: v for k, v in rows[-1].items() if k != "step" and isinstance(v, (int, float))},
        "train": len(parts["train"]),
        "held_out": len(parts["held_out"]),
        "steps": options.steps,
        "lr": lr,
        "samples": made["n"],
        "kl": made["kl"],
        "seconds": time.monotonic() - began,
        "options": settings,
    }
    trained_on = prompt_digests(parts["train"]) | set(seen)
    publish(out, policy.save, "summary.json", summary, ranks=learner.ranks, trained_on=trained_on)
    return summary


def _shown(turn: Step) -> dict[str, float]:
    """The reward that goes up, and how far the policy went for it (nats a response)."""
    return {**describe(turn.scores), "KL": turn.metrics["kl/k1_response"]}


def _show(out: Path, turn: Step, policy: LanguagePolicy) -> None:
    """The turn's outputs as rows and as a page."""
    pieces = [[policy.tokenizer.decode([i]) for i in ids] for ids in turn.rollout.inputs["output_ids"]]
    write_rollouts(out / "rollouts.jsonl", turn.rollout, turn.scores, step=turn.step, append=False)
    rollout_page(out / "rollouts.html", turn.rollout, turn.scores, title=f"Turn {turn.step}", pieces=pieces)
