"""Collect, then fit, then collect again: rejection sampling, iterative preference optimisation, self-training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rewardkit.loops.online import begin, check_best
from rewardkit.loops.turn import Reference
from rewardkit.needs import needs
from rewardkit.objectives.base import Loss, Reduce
from rewardkit.registry import entry
from rewardkit.training.checkpoint import Checkpoints
from rewardkit.training.fit import fit
from rewardkit.training.held_out import HeldOut, flat, measure
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.training.tracking import Tracker
from rewardkit.types import Measure, Rollout


@dataclass(frozen=True, eq=False)
class Round:
    """One round.

    Args:
        round: rounds so far, from 1. rollout: what was collected, with reference log-probs where they were needed.
        metrics: means over the round's updates, and ``held_out/...``. held_out: the measures after the round.
    """

    round: int
    rollout: Rollout
    metrics: dict[str, float]
    held_out: dict[str, Measure] | None = None


@entry("loops:rounds", aliases=("iterative_dpo", "rejection_sampling", "raft"), tags=("iterative",))
def rounds(
    learner: Learner,
    collect: Callable[[Any, int], Rollout],
    objective: Callable[..., Loss] | None = None,
    *,
    terms: Callable[[Rollout], Sequence[Term]] | None = None,
    reference: Reference,
    rounds: int,
    epochs: float = 1,
    batch: int = 16,
    reduce: Reduce = "tokens",
    length: int | None = None,
    held_out: HeldOut | None = None,
    seed: int = 0,
    checkpoint: Checkpoints | None = None,
    tracker: Tracker | None = None,
) -> Iterator[Round]:
    """Rounds of collecting with the present policy and fitting on what was collected, as an iterator.

    A checkpoint is taken at the end of a round, in which a killed run begins anew: ``collect`` must depend on the
    policy and the number of the round alone.

    Args:
        learner: holds the policy.
        collect: ``collect(policy, round) -> Rollout``, round from 1: best-of-n completions, pairs with ``rank``, a
            fixed data set.
        objective: what is fitted; or ``terms``, a function from a batch of what was collected to several terms.
        reference: ``start``, the weights that the loop began with; ``last``, those that the round began with; a frozen
            policy; ``None``, none. It has no default: the commonest bug is a wrong one. Its log-probs are computed
            once a round where the objective reads them or terms are given, and not at all if the rollout has those of
            the same weights.
        rounds: how many. epochs, batch, reduce, length: see :func:`rewardkit.training.fit.fit`.
        held_out: metrics that are no reward, taken before the first round and after each.
        seed: of the order within a round. checkpoint, tracker: where the run is kept (a step is a round), and where its
            metrics go (a row for each round; row 0 holds the first held-out metrics).

    Raises:
        ValueError: if the objective reads ``ref_logps`` and there is no reference, or the checkpoint ranks by a metric
            that is not in ``held_out``.

    >>> from rewardkit.objectives.imitation import sft
    >>> from rewardkit.policies.table import TablePolicy
    >>> def best_of_4(policy, round):
    ...     return policy.encode([max(policy.sample(["x"], 4, seed=round).samples, key=lambda s: s.output)])
    >>> learner = Learner(TablePolicy(["x"], ["a", "b"]), lr=0.3)
    >>> for found in rounds(learner, best_of_4, sft, reference=None, rounds=8):
    ...     pass
    >>> bool(learner.model.enumerate("x")[1][1] > 0.8)
    True
    """
    if (objective is None) == (terms is None):
        raise ValueError("rounds needs either an objective or terms")
    compares = objective is None or "ref_logps" in needs(objective)
    if reference is None and objective is not None and compares:
        raise ValueError("this objective reads ref_logps: reference must be 'start', 'last' or a policy")
    if learner.unplanned:
        raise ValueError(f"schedule={learner.schedule!r}, warmup={learner.warmup}: give the learner total_steps")
    check_best(checkpoint, held_out)
    policy: Any = learner.model
    begin(policy, reference)
    settings = {"seed": seed, "batch": batch, "epochs": epochs}
    done = 0
    if checkpoint is not None:
        done = int(checkpoint.resume_or_start({"learner": learner}, settings=settings)["step"])
    main = learner.ranks.main
    if tracker is not None and main:
        tracker.resume(done or -1)
    if held_out and done == 0:
        first = flat(measure(policy, held_out))
        if tracker is not None and main:
            tracker.log(0, {f"held_out/{k}": v for k, v in first.items()})
    while done < rounds:
        done += 1
        learner.module.eval()
        rollout = collect(policy, done)
        if reference is not None and compares:
            # Nothing was updated in this round yet: the live weights are the last round's.
            views = {"start": "start", "last": "live"}
            frozen = policy.at(views[reference]) if isinstance(reference, str) else reference
            rollout = learner.attach(rollout, frozen)
        run = fit(
            learner, rollout, objective, terms=terms, epochs=epochs, batch=batch, reduce=reduce, length=length,
            seed=seed + done,
        )  # fmt: skip
        reports = [step.metrics for step in run]
        metrics = {k: sum(r[k] for r in reports) / len(reports) for k in reports[0] if k != "epoch"}
        metrics["rows"] = float(len(rollout))
        found = measure(policy, held_out) if held_out else None
        metrics |= {f"held_out/{k}": v for k, v in flat(found or {}).items()}
        if main:
            if tracker is not None:
                tracker.log(done, metrics)
            if checkpoint is not None and checkpoint.due(done, done == rounds):
                checkpoint.save(done, {"learner": learner}, extra={"settings": settings}, metrics=flat(found or {}))
        yield Round(done, rollout, metrics, found)
