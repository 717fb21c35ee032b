"""What a judge's critique names, against what a person's names."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch

from rewardkit.registry import entry
from rewardkit.rewards.base import RewardBase
from rewardkit.types import MISSING, OK, Rollout, Scores


def set_f1(said: Collection[str], expected: Collection[str]) -> float:
    """Harmonic mean of precision and recall of what was named: naming everything is punished.

    >>> round(set_f1({"tone", "facts", "length"}, {"facts"}), 3), set_f1(set(), {"facts"}), set_f1(set(), set())
    (0.5, 0.0, 1.0)
    """
    one, two = set(said), set(expected)
    return 2 * len(one & two) / (len(one) + len(two)) if one or two else 1.0


@entry(
    "rewards.rules:critique_similarity",
    tags=("rule", "judge", "process"),
    source="RM-NLHF, arXiv:2601.07349: F1 of the core arguments of two critiques",
)
class CritiqueSimilarity(RewardBase):
    """:func:`set_f1` of the arguments that an output names and those that the person's critique names.

    Args:
        arguments: from an output to its core arguments; ``None`` for an output without critique, which is the judge's
            failure: 0. key: where ``sample.hidden`` keeps the person's arguments; rows without are MISSING.

    >>> from rewardkit.types import Sample
    >>> rows = [Sample("x", "facts tone", hidden={"critique": ("facts",)}), Sample("x", "facts")]
    >>> found = CritiqueSimilarity(str.split)(Rollout(rows, torch.ones(2, 1)))
    >>> round(found.outcome[0].item(), 3), found.status.tolist()
    (0.667, [0, 2])
    """

    name = "critique_similarity"

    def __init__(self, arguments: Callable[[str], Collection[str] | None], key: str = "critique") -> None:
        self.arguments, self.key = arguments, key

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        values, status = [], []
        for sample in rollout.samples:
            expected, said = sample.hidden.get(self.key), self.arguments(sample.output)
            values.append(0.0 if expected is None or said is None else set_f1(said, expected))
            status.append(MISSING if expected is None else OK)
        device = rollout.mask.device
        return Scores(torch.tensor(values, device=device), status=torch.tensor(status, device=device))
