"""Bandits whose reward, optimum and best-of-n are known exactly; independent letters by their types."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rewardkit.evals.closed_forms import best_of_n_distribution, kl, tilted
from rewardkit.policies.table import TablePolicy
from rewardkit.registry import entry
from rewardkit.types import Judgement, Rollout, Sample, Scores
from rewardkit.worlds.annotators import bradley_terry


class TableReward:
    """A reward that is looked up: ``[X, V]`` by prompt and action. The gold reward of a bandit."""

    name, scope = "gold", "sample"

    def __init__(self, prompts: Sequence[Any], actions: Sequence[Any], table: Tensor) -> None:
        if tuple(table.shape) != (len(prompts), len(actions)):
            raise ValueError(f"TableReward.table must be {(len(prompts), len(actions))}, not {tuple(table.shape)}")
        self.table = table
        self._at = {p: i for i, p in enumerate(prompts)}, {a: i for i, a in enumerate(actions)}

    def of(self, samples: Sequence[Sample]) -> Tensor:
        """``[N]``, without more ado."""
        rows, columns = self._at
        return self.table[[rows[s.asked] for s in samples], [columns[s.output] for s in samples]]

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        return Scores(self.of(rollout.samples))


@entry("worlds:tables", tags=("exact", "enumerable"))
class Bandits:
    """Contextual bandits: ``X`` prompts, ``V`` actions, a random gold reward and a random reference policy.

    Args:
        prompts, actions: how many. seed: of the reward and the reference. spread: standard deviation of the gold
            reward.
        skew: standard deviation of the reference's logits.

    >>> world = Bandits(2, 3, seed=0)
    >>> world.policy().sample(["x0"], 2, seed=0).mask.shape
    torch.Size([2, 1])
    >>> float(world.regularised(1.0)["kl"]) > 0
    True
    """

    def __init__(
        self, prompts: int = 4, actions: int = 8, *, seed: int = 0, spread: float = 1.0, skew: float = 1.0
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.prompts = [f"x{i}" for i in range(prompts)]
        self.actions = [f"a{i}" for i in range(actions)]
        shape = (prompts, actions)
        self.gold_table = torch.randn(shape, generator=generator, dtype=torch.float64) * spread
        self.log_reference = (torch.randn(shape, generator=generator, dtype=torch.float64) * skew).log_softmax(-1)
        self.gold = TableReward(self.prompts, self.actions, self.gold_table)

    def policy(self) -> TablePolicy:
        """A policy that stands at the reference, in float64."""
        return TablePolicy(self.prompts, self.actions, logits=self.log_reference[:, None, :])

    def log_probs(self, policy: TablePolicy) -> Tensor:
        """``[X, V]``, without gradient."""
        return policy.logits.detach()[:, 0].log_softmax(-1)

    def measure(self, policy: TablePolicy | Tensor) -> dict[str, float]:
        """Exact ``gold``, ``kl`` to the reference and ``entropy`` (the diversity), nats; means over prompts."""
        log_q = policy if isinstance(policy, Tensor) else self.log_probs(policy)
        return {
            "gold": float((log_q.exp() * self.gold_table).sum(-1).mean()),
            "kl": float(kl(log_q, self.log_reference).mean()),
            "entropy": float(-torch.xlogy(log_q.exp(), log_q.exp()).sum(-1).mean()),
        }

    def regularised(self, beta: float) -> dict[str, Tensor]:
        """The optimum of ``E[gold] - beta * KL``: ``log_probs [X, V]`` with its ``gold`` and ``kl``."""
        log_q = tilted(self.log_reference, self.gold_table, beta)
        return {"log_probs": log_q, **{k: torch.tensor(v) for k, v in self.measure(log_q).items()}}

    def best_of(self, n: float) -> Tensor:
        """Log-probabilities ``[X, V]`` of best-of-n under the gold reward."""
        rows = zip(self.log_reference, self.gold_table, strict=True)
        return torch.stack([best_of_n_distribution(p, r, n) for p, r in rows])

    def compare(self, first: Sequence[Sample], second: Sequence[Sample], *, seed: int) -> list[Judgement]:
        """Simulated annotators: Bradley-Terry on gold, a unit of gold a nat."""
        return bradley_terry(first, second, self.gold.of(first) - self.gold.of(second), seed=seed)

    def comparisons(self, *, noisy: bool = True) -> list[Judgement]:
        """Every pair of actions of every prompt with its Bradley-Terry probability; without noise, the better one wins.

        These are what infinitely many comparisons of uniformly drawn pairs would say.
        """
        judgements = []
        for x, prompt in enumerate(self.prompts):
            for i, j in itertools.combinations(range(len(self.actions)), 2):
                gap = float(self.gold_table[x, i] - self.gold_table[x, j])
                items = (Sample(prompt, self.actions[i]), Sample(prompt, self.actions[j]))
                if noisy:
                    first = 1 / (1 + math.exp(-gap))
                    judgements.append(Judgement(items, p=(first, 1 - first)))
                else:
                    judgements.append(Judgement(items, rank=(0, 1) if gap > 0 else (1, 0)))
        return judgements


def types(log_p: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """The types (letter counts) of sequences of independent letters.

    Args:
        log_p: ``[K]`` log-probabilities of a letter. length: letters a sequence.

    Returns:
        counts ``[N, K]`` and the log-probability ``[N]`` of each type. Sequences of one type share probability and any
        additive reward, so that a distribution over types is exact for both.

    >>> counts, log_q = types(torch.tensor([0.5, 0.5], dtype=torch.float64).log(), 2)
    >>> counts.tolist(), [round(p, 6) for p in log_q.exp().tolist()]
    ([[0.0, 2.0], [1.0, 1.0], [2.0, 0.0]], [0.25, 0.5, 0.25])
    """
    letters = len(log_p)
    bars = itertools.combinations(range(length + letters - 1), letters - 1)
    rows = []
    for places in bars:
        edges = (-1, *places, length + letters - 1)
        rows.append([b - a - 1 for a, b in itertools.pairwise(edges)])
    counts = torch.tensor(rows, dtype=log_p.dtype)
    log_many = math.lgamma(length + 1) - torch.lgamma(counts + 1).sum(-1)
    return counts, log_many + (counts * log_p).sum(-1)
