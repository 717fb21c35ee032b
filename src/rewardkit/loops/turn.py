"""One turn of the online loop: sample, compare, attach, score, credit, update."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import torch

from rewardkit.credit.base import Rule, apply, tensors_needed
from rewardkit.loops.ahead import check_ahead
from rewardkit.loops.ranks import Shared
from rewardkit.loops.signal import Watch, check_errors, divergence, rewards
from rewardkit.measures.kl import Estimator
from rewardkit.objectives.base import Loss, Reduce
from rewardkit.objectives.policy import exact_kl, full_kl
from rewardkit.objectives.policy import kl as kl_objective
from rewardkit.protocols import Policy, Prompts, Reward
from rewardkit.training.learner import Learner
from rewardkit.training.modes import forward
from rewardkit.training.term import Term
from rewardkit.types import Rollout, Scores

log = logging.getLogger(__name__)

Reference = Literal["start", "last"] | Policy | None
"""Whose log-probs a divergence is measured from."""

Rows = Literal["outputs", "steps"]
"""What an update counts and shuffles."""


class Batch(NamedTuple):
    """A turn's outputs before they are scored: this rank's, with all that they need, and everybody's, gathered by
    ``shared``."""

    rollout: Rollout
    whole: Rollout
    shared: Shared


@dataclass(kw_only=True)
class Turn:
    """One turn of the loop, given its parts."""

    learner: Learner
    prompts: Prompts
    reward: Reward
    credit: Rule
    objective: Callable[..., Loss]
    reference: Reference
    n: int
    batch: int
    inner: int
    minibatch: int | None
    kl: float
    kl_estimator: Estimator | Literal["exact"]
    critic: Learner | None
    value_objective: Callable[..., Loss]
    value_coef: float
    reduce: Reduce
    length: int | None
    env: Any
    rows: Rows
    sampling: Any
    max_errors: float
    seed: int
    ahead: int = 0

    def check(self) -> None:
        """Settings that contradict each other are named before anything is sampled."""
        self.watch, self.compared = Watch(), False
        self.waiting: Batch | None = None
        ranks = self.learner.ranks.count
        for one in filter(None, (self.learner, self.critic)):
            if one.unplanned:
                raise ValueError(f"schedule={one.schedule!r}, warmup={one.warmup}: give the learner total_steps")
        if self.n < 1 or self.batch < 1 or self.inner < 1:
            raise ValueError(f"n, batch and inner must be at least 1, not {self.n}, {self.batch}, {self.inner}")
        if self.batch % ranks:
            raise ValueError(f"batch={self.batch} prompts cannot be divided evenly among {ranks} ranks")
        asked = tensors_needed(self.credit)
        if self.kl and self.kl_estimator == "exact" and self.reference == "last":
            raise ValueError("an exact KL needs weights that stay: reference 'start' or a policy, not 'last'")
        if self.reference is None and (self.kl or "ref_logps" in asked):
            raise ValueError("a KL penalty needs a reference: 'start', 'last' or a policy")
        if "values" in asked and self.critic is None:
            raise ValueError("this credit rule reads values: pass critic=Learner(a model that gives values)")

        if self.ahead:
            models = [self.learner.model, None if self.critic is None else self.critic.model]
            check_ahead(self.ahead, self.objective, self.reference, self.reward, [*models, self.env, self.prompts])

    def run(self, step: int, *, further: bool = False) -> tuple[Rollout, Scores, dict[str, float]]:
        """The turn. ``further``: sample the next one's batch while this one's is scored."""
        rollout, whole, shared = self.waiting or self.prepared(step)
        self.waiting = None

        def score() -> Scores:
            return self.reward(whole, {"step": step, "seed": self.seed})

        if further:
            with ThreadPoolExecutor(1, "reward") as thread:
                # What ranks tell each other they tell here, in one order: the thread scores and nothing else.
                scoring = thread.submit(score) if shared.ranks.main else None
                self.waiting = self.prepared(step + 1)
                scores = shared.on_main(score if scoring is None else scoring.result)
        else:
            scores = shared.on_main(score)
        check_errors(scores, self.max_errors)
        metrics = divergence(whole) | rewards(whole, scores)
        credited = apply(self.credit, whole, scores)
        moved = self.moved()
        metrics |= self.update(shared.own(credited, len(rollout)), step)
        self.prompts.feedback(whole, scores)
        if hasattr(self.reward, "update"):
            self.reward.update(whole, scores, step=step)
        return credited, scores, metrics | self.watch.look(step, metrics, credited, moved)

    def prepared(self, step: int) -> Batch:
        """The turn's outputs by the present weights, ready to be scored and trained on."""
        shared = Shared(self.learner.ranks)
        rollout = self.attach(self.compare(self.sample(step, shared)))
        return Batch(rollout, in_families(shared.gathered(rollout)), shared)

    def sample(self, step: int, shared: Shared) -> Rollout:
        """This rank's share of the turn's prompts, answered."""
        drawn = shared.share(self.prompts.draw(self.batch))
        self.learner.module.eval()
        policy: Any = self.learner.model
        seed = (self.seed * 1_000_003 + step) * 4099 + self.learner.ranks.index
        where = {} if self.env is None else {"env": self.env}
        rollout = policy.sample(drawn, self.n, sampling=self.sampling, seed=seed, **where)
        if "old_logps" not in rollout:
            rollout = self.learner.attach(rollout, policy, "old_logps")
        return rollout

    def compare(self, rollout: Rollout) -> Rollout:
        """Once: the sampler's log-probs are the learner's, or every ratio is wrong.

        Returns:
            the rollout, that once with the learner's, ``own_logps``.

        Raises:
            ValueError: if they differ by more than 0.1 nats on average.
        """
        if self.compared:
            return rollout
        self.compared = True
        own = self.learner.attach(rollout, self.learner.model, "own_logps")
        gap = (own["own_logps"] - rollout["old_logps"])[rollout.mask > 0].abs()
        worst, mean = (float(gap.max()), float(gap.mean())) if len(gap) else (0.0, 0.0)
        said = f"the sampler's log-probs differ from the learner's by {mean:.2g} nats on average, {worst:.2g} at most"
        if not mean <= 0.1:
            raise ValueError(f"{said}: temperature, template or weights are not the same")
        if mean > 0.01:
            log.warning("%s", said)
        return own

    def attach(self, rollout: Rollout) -> Rollout:
        """Log-probs of the first policy and of the reference, and values, all as a step computes them."""
        policy: Any = self.learner.model
        if self.learner.precision != "no":
            # The sampler runs in the weights' own precision; a ratio to what it kept would not begin at 1.
            rollout = self.learner.attach(rollout, policy, "old_logps")
        rollout = self.learner.attach(rollout, policy.at("start"), "start_logps")
        if self.reference == "start":
            rollout = rollout.with_tensors(ref_logps=rollout["start_logps"])
        elif self.reference == "last":
            # The weights before this turn's update are those that sampled.
            rollout = rollout.with_tensors(ref_logps=rollout["old_logps"])
        elif self.reference is not None:
            rollout = self.learner.attach(rollout, self.reference)
        # It has served where the same weights were asked for under another name.
        rollout = replace(rollout, tensors={k: v for k, v in rollout.tensors.items() if k != "own_logps"})
        if self.critic is not None:
            self.critic.module.eval()
            with torch.no_grad():
                # A critic that can look beyond the last action says what a row that was cut short still had to come.
                want = ("values", "bootstrap") if getattr(self.critic.model, "bootstraps", False) else ("values",)
                found = forward(self.critic.model, rollout, want, self.critic.precision)
            found = {k: v.to(rollout.mask.device) for k, v in found.items()}
            rollout = rollout.with_tensors(**found, old_values=found["values"])
        return rollout

    def moved(self) -> bool:
        """Whether any trained weight differs from the first policy's.

        The divergence cannot say it: sampling and teacher forcing round differently, so it is hardly ever exactly 0.
        """
        policy: Any = self.learner.model
        first = dict(policy.at("start").module.named_parameters())
        return any(n not in first or not torch.equal(p, first[n].to(p)) for n, p in self.learner.params.items())

    def update(self, rollout: Rollout, step: int) -> dict[str, float]:
        """``inner`` passes over the rows; metrics are means over the updates."""
        seen: list[dict[str, float]] = []
        rollout = rollout.steps() if self.rows == "steps" else rollout
        size = len(rollout) if self.minibatch is None else max(1, self.minibatch // self.learner.ranks.count)
        if size < len(rollout):
            rollout = self.trimmed(rollout)
        for epoch in range(self.inner):
            for part in self.parts(rollout, size, step, epoch):
                report = self.learner.step(*self.terms(part))
                if self.critic not in (None, self.learner):
                    found = self.critic.step(Term(part, self.value_objective))
                    report |= {f"critic/{k}": v for k, v in found.items()}
                seen.append(report)
        names = dict.fromkeys(k for report in seen for k in report)
        return {k: sum(r.get(k, 0.0) for r in seen) / sum(k in r for r in seen) for k in names}

    def trimmed(self, rollout: Rollout) -> Rollout:
        """Without the tensors that no term reads: what is taken apart is small."""
        terms = self.terms(rollout) + ([] if self.critic is None else [Term(rollout, self.value_objective)])
        read = set().union(*(t.reads for t in terms))
        return replace(rollout, tensors={k: v for k, v in rollout.tensors.items() if k in read})

    def parts(self, rollout: Rollout, size: int, step: int, epoch: int) -> Iterator[Rollout]:
        """Minibatches of ``size`` rows, in an order of this epoch; all rows as they stand where one holds them all."""
        if size >= len(rollout):
            yield rollout
            return
        chance = torch.Generator().manual_seed((self.seed * 1_000_003 + step) * 4099 + epoch)
        numbers, group = torch.unique(rollout.group.cpu(), return_inverse=True)
        place = torch.randperm(len(numbers), generator=chance).argsort()
        yield from rollout.split(size, place[group].argsort(stable=True))

    def terms(self, part: Rollout) -> list[Term]:
        found = [Term(part, self.objective, reduce=self.reduce, length=self.length)]
        if self.critic is self.learner:
            found.append(Term(part, self.value_objective, coef=self.value_coef))
        if not self.kl:
            return found
        options: dict[str, Any] = {"coef": self.kl, "reduce": self.reduce, "length": self.length}
        if self.kl_estimator == "exact":
            policy: Any = self.learner.model
            against = policy.at(self.reference) if isinstance(self.reference, str) else self.reference
            return [*found, Term(part, exact_kl, want=(full_kl(against),), **options)]
        return [*found, Term(part, partial(kl_objective, estimator=self.kl_estimator), **options)]


def in_families(rollout: Rollout) -> Rollout:
    """Rows whose prompts have an equal ``hidden["family"]`` are one family, where every row has one.

    Whole numbers are kept, so that a credit rule that remembers knows a family again in the next turn; other names are
    numbered in the order in which they come.
    """
    names = [s.hidden.get("family") for s in rollout.samples]
    if None in names:
        return rollout
    order = dict.fromkeys(names)
    whole = all(isinstance(name, int) for name in order)
    number = {name: name if whole else i for i, name in enumerate(order)}
    return replace(rollout, family=torch.tensor([number[n] for n in names], device=rollout.group.device))
