"""How much the outputs for one question agree with those for its paraphrases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from rewardkit.registry import entry
from rewardkit.rewards.base import RewardBase
from rewardkit.rewards.rules.answers import token_f1
from rewardkit.types import ERROR, OK, Cost, Rollout, Scores


@entry(
    "rewards.rules:group_similarity",
    aliases=("objectives.policy:ps_grpo", "paraphrased_set_similarity"),
    tags=("rule", "family", "no-reference"),
    source="Con-RAG / PS-GRPO, arXiv:2510.04392, section 3",
)
class GroupSimilarity(RewardBase):
    """The mean similarity of an output to those of the family's *other* groups, never to its own group's.

    Within its own group it would reward a policy for saying always the same to the same words; across paraphrases it
    rewards saying the same to the same question. A constant answer has the highest reward of all: add a term for
    accuracy, or a KL. PS-GRPO is this reward with ``group_relative`` and ``clipped``.

    Args:
        similarity: of two outputs, symmetric or not, in units of reward. paraphrases, outputs: sample only so many
            groups, and so many outputs of each, to compare an output with; ``None`` for all. seed: of that.
        own: compare within the own group instead; what the paper warns of, as a control.

    >>> from rewardkit.types import Sample
    >>> rows = [Sample("q1", "Oslo"), Sample("q1", "Rome"), Sample("q2", "Oslo"), Sample("q2", "Oslo")]
    >>> groups, family = torch.tensor([0, 0, 1, 1]), torch.zeros(4, dtype=torch.long)
    >>> GroupSimilarity()(Rollout(rows, torch.ones(4, 1), groups, family)).outcome.tolist()
    [1.0, 0.0, 0.5, 0.5]
    """

    name, scope = "group_similarity", "family"

    def __init__(
        self,
        similarity: Callable[[str, str], float] = token_f1,
        *,
        paraphrases: int | None = None,
        outputs: int | None = None,
        own: bool = False,
        seed: int = 0,
    ) -> None:
        if min(paraphrases or 1, outputs or 1) < 1:
            raise ValueError(f"paraphrases and outputs are at least 1, or None: {paraphrases}, {outputs}")
        self.similarity, self.paraphrases, self.outputs, self.own, self.seed = (
            similarity, paraphrases, outputs, own, seed,
        )  # fmt: skip

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        """Scores ``[B]``; a row without another group in its family is ERROR. ``cost.calls`` counts comparisons."""
        chance = torch.Generator().manual_seed(self.seed * 1_000_003 + int((ctx or {}).get("step", 0)))
        families: dict[int, dict[int, list[int]]] = {}
        for row, (family, group) in enumerate(zip(rollout.family.tolist(), rollout.group.tolist(), strict=True)):
            families.setdefault(family, {}).setdefault(group, []).append(row)
        outcome, status, calls = torch.zeros(len(rollout)), torch.full((len(rollout),), OK), 0
        for groups in families.values():
            for group, rows in groups.items():
                for row in rows:
                    others = self._others(groups, group, row, chance)
                    if not others:
                        status[row] = ERROR
                        continue
                    said = rollout.samples[row].output
                    found = [self.similarity(said, rollout.samples[o].output) for o in others]
                    outcome[row], calls = sum(found) / len(found), calls + len(found)
        why = ["no other group in this row's family" if s == ERROR else None for s in status.tolist()]
        device = rollout.mask.device
        return Scores(
            outcome.to(device), why=why if any(why) else None, status=status.to(device), cost=Cost(calls=calls)
        )

    def _others(self, groups: Mapping[int, list[int]], group: int, row: int, chance: torch.Generator) -> list[int]:
        """The rows that ``row`` is compared with."""
        if self.own:
            return [r for r in groups[group] if r != row]
        others = _some([rows for g, rows in groups.items() if g != group], self.paraphrases, chance)
        return [r for rows in others for r in _some(rows, self.outputs, chance)]


def _some(things: list[Any], n: int | None, chance: torch.Generator) -> list[Any]:
    if n is None or n >= len(things):
        return things
    return [things[i] for i in torch.randperm(len(things), generator=chance)[:n].tolist()]
