"""Best-of-n: draw n outputs, keep the one that a reward likes best. A policy like any other, without log-probs."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from rewardkit.guidance.base import Guided, outcome_of
from rewardkit.protocols import Policy, Reward
from rewardkit.registry import entry
from rewardkit.types import Rollout, Scores


@entry(
    "guidance:best_of_n",
    tags=("no-gradients",),
    source="Stiennon et al. 2020, arXiv:2009.01325; Nakano et al. 2021, arXiv:2112.09332",
)
def best_of_n(policy: Policy, reward: Reward, n: int) -> BestOfN:
    """The policy that draws ``n`` outputs for each one it gives and keeps the best by ``reward``.

    Args:
        policy: what draws; seen live, so its training is followed. reward: what chooses; it sees the draws of a whole
            call at once. n: draws.

    >>> from rewardkit.policies.table import TablePolicy
    >>> from rewardkit.rewards.base import RewardBase
    >>> class Letter(RewardBase):
    ...     name = "letter"
    ...     def __call__(self, rollout, ctx=None):
    ...         return Scores(torch.tensor([float(s.output == "b") for s in rollout.samples]))
    >>> best = best_of_n(TablePolicy(["x"], ["a", "b"]), Letter(), 16)
    >>> rollout = best.sample(["x"], seed=0)
    >>> rollout.samples[0].output, round(best.kl_bound, 2)
    ('b', 1.84)
    """
    return BestOfN(policy, reward, n)


class BestOfN(Guided):
    """See :func:`best_of_n`. Its own log-probs are not known in closed form, so ``evaluate`` refuses."""

    name = "best-of-n"

    def __init__(self, policy: Policy, reward: Reward, n: int) -> None:
        if n < 1:
            raise ValueError(f"best_of_n needs n of at least 1, not {n}")
        self.policy, self.reward, self.n = policy, reward, n

    @property
    def version(self) -> str:
        """Changes with the weights of the policy that draws."""
        return f"best of {self.n}: {self.policy.version}"

    @property
    def kl_bound(self) -> float:
        """KL to the policy that draws, in nats: exact where no two outputs score equal, else an upper bound."""
        return best_of_n_kl(self.n)

    def sample(self, start: Sequence[Any], n: int = 1, *, sampling: Any = None, seed: int | None = None) -> Rollout:
        """``n`` outputs a start, each the best of ``self.n`` draws.

        Draws whose grader failed cannot win; an output all of whose draws failed is left out, with a warning. The
        tensor ``score`` ``[B]`` is the reward that won; the cost is that of all draws and of scoring them.
        ``old_logps`` is
        dropped: it would be the drawing policy's.

        Raises:
            ValueError: if the grader failed on every draw.
        """
        rollout = self.policy.sample(start, n * self.n, sampling=sampling, seed=seed)
        scores = self.reward(rollout)
        kept = self._best(scores)
        cost = rollout.cost + scores.cost
        if len(kept) < len(start) * n:
            lost = len(start) * n - len(kept)
            if not len(kept):
                raise ValueError(f"reward {self.reward.name!r} failed on every one of {len(scores)} draws")
            warnings.warn(
                f"best_of_n: {lost} of {len(start) * n} outputs are left out, all their draws failed", stacklevel=2
            )
        best = rollout.select(kept)
        tensors = {k: v for k, v in best.tensors.items() if k != "old_logps"}
        outcome = outcome_of(scores, self.name)[kept]
        how = {**best.how, "best_of": self.n, "by": self.reward.name}
        return replace(best, tensors={**tensors, "score": outcome}, how=how, cost=cost)

    def _best(self, scores: Scores) -> Tensor:
        """Rows that win, long ``[K]``: the first of the largest scores in each run of ``self.n`` draws."""
        value = outcome_of(scores, self.name).detach().double()
        value = torch.where(scores.ok, value, torch.full_like(value, -math.inf)).reshape(-1, self.n)
        rows = value.argmax(1) + torch.arange(len(value), device=value.device) * self.n
        return rows[value.amax(1) > -math.inf].cpu()


def best_of_n_kl(n: float) -> float:
    """``log n - (n - 1) / n``: KL of best-of-n to the policy that draws, in nats; an upper bound where rewards tie.

    >>> round(best_of_n_kl(4), 3)
    0.636
    """
    if n < 1:
        raise ValueError(f"best_of_n_kl needs n of at least 1, not {n}")
    return math.log(n) - (n - 1) / n


def best_of_n_curve(proxy: Tensor, values: Tensor, ns: Sequence[int]) -> Tensor:
    """Expected value of the best of ``n`` by ``proxy``, for every ``n``, from one pool of draws and without bias.

    With the pool sorted by proxy, the draw at place i (from 1) is the best of n chosen without replacement with
    probability ``C(i - 1, n - 1) / C(M, n)``; equal proxies share theirs.

    Args:
        proxy: ``[..., M]``, what chooses, M draws of one prompt. values: the same shape, what is averaged (gold,
            length,
            proxy itself). ns: up to M each.

    Returns:
        ``[..., len(ns)]``.

    Raises:
        ValueError: for an ``n`` over M.

    >>> best_of_n_curve(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 0.0, 6.0]), [1, 2, 3]).tolist()
    [2.0, 4.0, 6.0]
    """
    pool = proxy.shape[-1]
    if proxy.shape != values.shape:
        raise ValueError(f"proxy {tuple(proxy.shape)} and values {tuple(values.shape)} must have one shape")
    if max(ns) > pool or min(ns) < 1:
        raise ValueError(f"n runs from 1 to the {pool} draws of the pool, not {list(ns)}")
    ordered, index = proxy.double().sort(-1)
    rows = ordered.reshape(-1, pool)
    value = values.double().gather(-1, index).reshape(-1, pool)
    found = []
    for n in ns:
        weight = torch.tensor([math.comb(i, n - 1) / math.comb(pool, n) for i in range(pool)], dtype=torch.float64)
        found.append(torch.stack([(_shared(weight, r) * v).sum() for r, v in zip(rows, value, strict=True)]))
    return torch.stack(found, -1).reshape(*proxy.shape[:-1], len(ns)).to(values.dtype)


def _shared(weight: Tensor, ordered: Tensor) -> Tensor:
    """``weight [M]`` averaged over runs of equal values of ``ordered [M]``."""
    _, index, count = torch.unique_consecutive(ordered, return_inverse=True, return_counts=True)
    total = torch.zeros(len(count), dtype=weight.dtype).index_add_(0, index, weight)
    return (total / count)[index]
