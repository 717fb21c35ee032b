"""Preference games: what beats what is a matrix, cycles allowed, and Nash is known by its duality gap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from rewardkit.data.rows import attach, comparison_rows
from rewardkit.evals.closed_forms import kl
from rewardkit.evals.games import duality_gap, win_rates
from rewardkit.policies.table import TablePolicy
from rewardkit.registry import entry
from rewardkit.types import Judgement, Rollout, Sample
from rewardkit.worlds.annotators import judged

Kind = Literal["intransitive", "transitive", "cycle"]


@entry("worlds:preference_games", tags=("exact", "enumerable", "game"))
class Games:
    """A game for each prompt: which of two actions is preferred, and how surely.

    Args:
        prompts, actions: how many. kind: ``intransitive``, random preferences in which no action beats every other;
            ``transitive``, Bradley-Terry; ``cycle``, every action surely beats the half of the others that come before
            it, as rock, paper and scissors do.
        seed: of preferences and reference. skew: standard deviation of the reference's logits.

    >>> world = Games(1, 3, kind="cycle")
    >>> world.preference[0].tolist()
    [[0.5, 0.0, 1.0], [1.0, 0.5, 0.0], [0.0, 1.0, 0.5]]
    """

    def __init__(
        self, prompts: int = 4, actions: int = 6, *, kind: Kind = "intransitive", seed: int = 0, skew: float = 1.0
    ) -> None:
        if kind == "cycle" and actions % 2 == 0:
            raise ValueError(f"a cycle needs an odd number of actions, not {actions}")
        if kind == "intransitive" and actions < 3:
            raise ValueError(
                f"an intransitive game needs at least 3 actions, not {actions}: one of two beats the other"
            )
        chance = torch.Generator().manual_seed(seed)
        self.prompts = [f"x{i}" for i in range(prompts)]
        self.actions = [f"a{i}" for i in range(actions)]
        self.preference = torch.stack([_preference(kind, actions, chance) for _ in self.prompts])
        drawn = torch.randn(prompts, actions, generator=chance, dtype=torch.float64)
        self.log_reference = (drawn * skew).log_softmax(-1)

    def policy(self) -> TablePolicy:
        """A policy that stands at the reference, in float64."""
        return TablePolicy(self.prompts, self.actions, logits=self.log_reference[:, None, :])

    def log_probs(self, policy: TablePolicy) -> Tensor:
        """``[X, V]``, without gradient."""
        return policy.logits.detach()[:, 0].log_softmax(-1)

    def measure(self, log_q: Tensor) -> dict[str, float]:
        """Exact figures of log-probs ``[X, V]``, means over prompts: ``gap``, ``gold`` (the share of duels won against
        the reference), ``kl`` to it and ``entropy`` (nats)."""
        return {
            "gap": float(duality_gap(self.preference, log_q.exp()).mean()),
            "gold": self.duel(log_q, self.log_reference),
            "kl": float(kl(log_q, self.log_reference).mean()),
            "entropy": float(-torch.xlogy(log_q.exp(), log_q.exp()).sum(-1).mean()),
        }

    def duel(self, log_q: Tensor, log_r: Tensor) -> float:
        """The share of duels that the first policy wins against the second, exactly, a mean over prompts."""
        return float((log_q.exp() * win_rates(self.preference, log_r.exp())).sum(-1).mean())

    def compare(self, first: Sequence[Sample], second: Sequence[Sample], *, seed: int) -> list[Judgement]:
        """Simulated annotators: each answer drawn by the game's own probability."""
        chance = torch.Generator().manual_seed(seed)
        rows = [self.prompts.index(s.asked) for s in first]
        places = [[self.actions.index(s.output) for s in side] for side in (first, second)]
        wins = torch.rand(len(rows), generator=chance) < self.preference[rows, places[0], places[1]]
        return judged(first, second, wins.tolist())

    def pairs(self, policy: TablePolicy, n: int, *, seed: int) -> Rollout:
        """``n`` judged pairs a prompt of the policy's own actions, to be fitted on."""
        drawn = policy.sample(self.prompts, 2 * n, seed=seed).samples
        rows = comparison_rows(self.compare(drawn[0::2], drawn[1::2], seed=seed))
        return attach(policy.encode(rows.samples), rows)


def _preference(kind: Kind, actions: int, chance: torch.Generator) -> Tensor:
    """One game, float64 ``[V, V]``."""
    while True:
        if kind == "cycle":
            ahead = (torch.arange(actions)[:, None] - torch.arange(actions)) % actions
            return torch.where(ahead == 0, 0.5, ((ahead > 0) & (ahead <= actions // 2)).double())
        if kind == "transitive":
            strength = torch.randn(actions, generator=chance, dtype=torch.float64)
            return torch.sigmoid(2 * (strength[:, None] - strength))
        drawn = torch.randn(actions, actions, generator=chance, dtype=torch.float64)
        found = torch.sigmoid(2 * (drawn - drawn.T))
        if not bool(((found > 0.5).sum(1) == actions - 1).any()):
            return found
