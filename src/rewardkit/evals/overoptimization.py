"""Over-optimisation: proxy reward, gold reward and KL of a policy as it is optimised, and where to stop.

Gao, Schulman and Hilton 2023, "Scaling Laws for Reward Model Overoptimization", arXiv:2210.10760.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rewardkit.measures.masked import masked_sum
from rewardkit.measures.pairs import wins
from rewardkit.protocols import Policy, Reward
from rewardkit.registry import entry
from rewardkit.types import Judgement, Rollout, Sample


@dataclass(frozen=True)
class Point:
    """A policy measured on held-out prompts.

    Args:
        step: updates done (or n, for best-of-n).
        kl: KL(policy || start), nats a response; the mean of the sampled log-ratio (k1), so it may fall below 0.
        proxy, gold: mean rewards.
        winrate: share of prompts where gold prefers the policy's output to the start's, a tie counting half.
        preferred: the same by annotators on the validation prompts, or ``None`` where nobody was asked.
        length: mean number of trained positions a response.
        n: prompts measured.
    """

    step: int
    kl: float
    proxy: float
    gold: float
    winrate: float
    length: float
    n: int
    preferred: float | None = None
    asked: int = 0


@dataclass
class Ruler:
    """Measures policies on the same prompts, against the same outputs of the starting policy.

    Args:
        start: the policy that KL and win rates refer to; it is sampled once.
        prompts: held-out prompts for proxy, gold, KL and win rate: never trained on, never used to choose anything.
        proxy, gold: the learned reward and the one that training never sees.
        validation: other held-out prompts on which ``compare`` is asked, to choose where to stop.
        compare: ``(new, old) -> judgements``, people or their simulation.
        sampling, seed: how outputs are drawn. draws: outputs a prompt of the start, all of which a new output is
            compared with: one alone would add its own luck to every win rate.

    Raises:
        ValueError: for ``compare`` without ``validation`` prompts to ask on.
    """

    start: Policy
    prompts: Sequence[Sample]
    proxy: Reward
    gold: Reward
    validation: Sequence[Sample] = ()
    compare: Callable[[Sequence[Sample], Sequence[Sample]], list[Judgement]] | None = None
    sampling: Any = None
    seed: int = 0
    draws: int = 4
    baseline: Rollout = field(init=False)
    baseline_gold: Tensor = field(init=False)
    baseline_proxy: Tensor = field(init=False)

    def __post_init__(self) -> None:
        if self.compare is not None and not self.validation:
            raise ValueError("compare= is asked on validation prompts: pass validation= too")
        self.baseline = self.start.sample(self.prompts, self.draws, sampling=self.sampling, seed=self.seed)
        self.baseline_gold = outcomes(self.gold, self.baseline)
        self.baseline_proxy = outcomes(self.proxy, self.baseline)
        self._asked = (
            self.start.sample(self.validation, sampling=self.sampling, seed=self.seed + 1) if self.compare else None
        )

    def draw(self, policy: Policy) -> Rollout:
        """One output a prompt, drawn independently of the baseline's, with ``old_logps`` and ``ref_logps``."""
        rollout = policy.sample(self.prompts, sampling=self.sampling, seed=self.seed + 2)
        with torch.no_grad():
            return rollout.with_tensors(ref_logps=self.start.evaluate(rollout)["logps"])

    def measure(self, policy: Policy, step: int) -> Point:
        """The policy's point at ``step``."""
        rollout = self.draw(policy)
        kl = masked_sum(rollout["old_logps"] - rollout["ref_logps"], rollout.mask).mean()
        preferred = None
        if self.compare is not None:
            asked = policy.sample(self.validation, sampling=self.sampling, seed=self.seed + 3)
            preferred = float(self.preferences(asked).mean())
        gold = outcomes(self.gold, rollout)
        return Point(
            step=step,
            kl=float(kl),
            proxy=float(outcomes(self.proxy, rollout).mean()),
            gold=float(gold.mean()),
            winrate=float(self.wins(gold).mean()),
            length=float(rollout.mask.sum(-1).mean()),
            n=len(rollout),
            preferred=preferred,
            asked=0 if preferred is None else len(self.validation),
        )

    def wins(self, gold: Tensor) -> Tensor:
        """Share of the start's outputs to the same prompt that each output beats, a tie counting half.

        Args:
            gold: ``[B]``, equally many outputs for each prompt, those of a prompt together.

        Returns:
            ``[B]``.
        """
        new_PN, old_PD = gold.reshape(len(self.prompts), -1), self.baseline_gold.reshape(len(self.prompts), -1)
        return wins(new_PN[:, :, None], old_PD[:, None, :]).mean(-1).flatten()

    def preferences(self, rollout: Rollout) -> Tensor:
        """What annotators say of outputs to the validation prompts, against the start's: 1, 0 or 0.5 for a tie.

        Args:
            rollout: equally many outputs for each validation prompt, those of a prompt together.

        Returns:
            ``[B]``.

        Raises:
            ValueError: if nobody can be asked, or a judgement is not a ranked pair.
        """
        if self.compare is None or self._asked is None:
            raise ValueError("this ruler was given nobody to ask: pass validation= and compare=")
        each = len(rollout) // len(self.validation)
        old = [s for s in self._asked.samples for _ in range(each)]
        ranks = [j.rank for j in self.compare(rollout.samples, old)]
        if any(r is None or len(r) != 2 for r in ranks):
            raise ValueError("a preference is a ranked pair; compare= returned something else")
        new_rank, old_rank = torch.tensor(ranks).T
        return wins(old_rank, new_rank)

    @property
    def noise(self) -> float:
        """How far two means of gold may lie apart by chance: 1.96 standard errors of a difference of two points."""
        return 1.96 * float(self.baseline_gold.std()) * (2 / len(self.prompts)) ** 0.5


def outcomes(reward: Reward, rollout: Rollout) -> Tensor:
    """The outcome of every row.

    Raises:
        ValueError: if a row could not be scored: a mean over the others would hide it.
    """
    scores = reward(rollout)
    if scores.outcome is None:
        raise ValueError(f"reward {reward.name!r} has no outcome to average")
    if not bool(scores.ok.all()):
        row = int((~scores.ok).nonzero()[0])
        why = scores.why[row] if scores.why else None
        raise ValueError(
            f"reward {reward.name!r} could not score {int((~scores.ok).sum())} rows, first row {row}: {why}"
        )
    return scores.outcome.float().cpu()


@entry("evals:stopping_point", tags=("overoptimization", "model-selection"))
def stopping_point(points: Sequence[Point]) -> int:
    """Where a run should have been stopped, without gold: the least KL whose outputs annotators like as well as any.

    The rate at which annotators prefer the policy to the start on validation prompts has a standard error; among the
    points within one of them of the best rate, the first is taken (the one-standard-error rule of Breiman et al. 1984,
    section 3.4.3): more optimisation that nobody notices is only more risk.

    >>> point = lambda step, rate: Point(step, 0.1 * step, 0.0, 0.0, 0.5, 9.0, 100, preferred=rate, asked=100)
    >>> stopping_point([point(0, 0.5), point(10, 0.7), point(20, 0.82), point(30, 0.84), point(40, 0.6)])
    2
    """
    rates = [p.preferred for p in points]
    if any(r is None for r in rates):
        raise ValueError("stopping_point needs annotators' preferences at every point")
    known = [float(r) for r in rates if r is not None]
    best = max(known)
    error = (best * (1 - best) / max(1, points[known.index(best)].asked)) ** 0.5
    return next(i for i, r in enumerate(known) if r >= best - error)
