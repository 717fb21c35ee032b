"""Rules about the form of an output: tags that must be opened and closed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from rewardkit.registry import entry
from rewardkit.rewards.base import RewardBase
from rewardkit.rewards.function import text_of
from rewardkit.types import Rollout, Scores


def well_formed(text: str, tags: Sequence[str]) -> bool:
    """Whether each tag stands exactly once, ``<tag> ... </tag>``, in this order, none inside another.

    >>> well_formed("<think>a</think> <answer>b</answer>", ("think", "answer"))
    True
    """
    marks = re.findall("|".join(re.escape(m) for t in tags for m in (f"<{t}>", f"</{t}>")), text)
    return marks == [m for t in tags for m in (f"<{t}>", f"</{t}>")]


@entry(
    "rewards.rules:format_tags",
    tags=("rule", "format"),
    source="DeepSeek-R1, arXiv:2501.12948, section 2.2.2; IGPO, arXiv:2510.14967, gives -2 where tags are unbalanced",
)
class FormatTags(RewardBase):
    """``right`` where all tags are there in order, each opened and closed once; else ``wrong``.

    Args:
        tags: their names, in order. right, wrong: the scores.

    >>> from rewardkit.types import Sample
    >>> samples = [Sample("x", "<answer>b</answer>"), Sample("x", "<answer>b")]
    >>> FormatTags(["answer"], right=0.0, wrong=-2.0)(Rollout(samples, torch.ones(2, 1))).outcome.tolist()
    [0.0, -2.0]
    """

    name = "format_tags"

    def __init__(self, tags: Sequence[str] = ("think", "answer"), *, right: float = 1.0, wrong: float = 0.0) -> None:
        if isinstance(tags, str) or not tags:
            raise ValueError(f"format_tags needs a list of tag names, not {tags!r}")
        self.tags, self.right, self.wrong = tuple(tags), right, wrong

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        texts = ["" if s.output is None else text_of(s.output) for s in rollout.samples]
        values = [self.right if well_formed(t, self.tags) else self.wrong for t in texts]
        return Scores(torch.tensor(values, device=rollout.mask.device))
