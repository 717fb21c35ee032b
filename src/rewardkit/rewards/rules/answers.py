"""Rules about the final answer of a dialogue: how much of the expected one it gives."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch

from rewardkit.registry import entry
from rewardkit.rewards.base import RewardBase
from rewardkit.types import ERROR, OK, Rollout, Sample, Scores

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_MARKS = str.maketrans("", "", string.punctuation)


def final_answer(sample: Sample) -> str | None:
    """What the policy said last; ``None`` where it was cut off or only called a tool.

    >>> final_answer(Sample("x", [{"role": "assistant", "content": "Oslo"}]))
    'Oslo'
    """
    if sample.ended != "done" or sample.output is None:
        return None
    if isinstance(sample.output, str):
        return sample.output
    last = sample.output[-1]
    return None if last.get("tool_calls") else str(last["content"])


def token_f1(said: str, expected: str) -> float:
    """Harmonic mean of precision and recall over words, without case, punctuation and articles.

    >>> round(token_f1("The old town of Oslo.", "Oslo"), 3)
    0.4
    """
    one, two = _words(said), _words(expected)
    shared = (Counter(one) & Counter(two)).total()
    return 2 * shared / (len(one) + len(two)) if shared else float(one == two)


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_MARKS)).split()


@entry(
    "rewards.rules:token_f1",
    aliases=("answer_f1",),
    tags=("rule", "verifiable"),
    source="Rajpurkar et al. 2016, SQuAD, arXiv:1606.05250, section 6.1",
)
class TokenF1(RewardBase):
    """:func:`token_f1` of the final answer; ``failed`` where there is none (cut off, or a tool call at the end).

    Args:
        key: where ``sample.hidden`` keeps the expected answer; rows without one have status ERROR. failed: the score of
            a row without answer.

    >>> samples = [Sample("x", "Oslo, Norway", hidden={"answer": "Oslo"})]
    >>> round(TokenF1()(Rollout(samples, torch.ones(1, 1))).outcome.item(), 3)
    0.667
    """

    name = "token_f1"

    def __init__(self, key: str = "answer", *, failed: float = 0.0) -> None:
        self.key, self.failed = key, failed

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        values, why = [], []
        for sample in rollout.samples:
            gold, said = sample.hidden.get(self.key), final_answer(sample)
            found = self.failed if said is None else token_f1(said, str(gold))
            values.append(0.0 if gold is None else found)
            why.append(f"sample.hidden has no {self.key!r}" if gold is None else None)
        device = rollout.mask.device
        status = torch.tensor([OK if w is None else ERROR for w in why], device=device)
        return Scores(torch.tensor(values, device=device), why=why if any(why) else None, status=status)
