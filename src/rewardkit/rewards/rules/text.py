"""Rules about the text of an output: its length, and whether it gives the expected answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import torch

from rewardkit.registry import entry
from rewardkit.rewards.base import RewardBase
from rewardkit.rewards.function import text_of
from rewardkit.types import ERROR, OK, Rollout, Sample, Scores


def _said(sample: Sample) -> str | None:
    """The output as text; ``None`` where the policy failed to give one."""
    return None if sample.output is None and sample.ended == "failed" else text_of(sample.output)


@entry(
    "rewards.rules:length",
    aliases=("length_bonus", "length_incentive", "rewards.compose:length_penalty"),
    tags=("rule",),
)
class Length(RewardBase):
    """Length of the output, linear up to a cap: ``scale * min(length, cap)``.

    Args:
        unit: ``characters``, ``words``, or ``tokens`` (ids of the output, EOS among them, in a language policy's
            rollout).
        scale: reward a unit; negative to prefer short outputs. cap: the length from which nothing is added.

    An output that the policy failed to give has length 0.

    Raises:
        ValueError: for tokens in a rollout without token ids.

    >>> from rewardkit.types import Sample
    >>> rollout = Rollout([Sample("Hi", "Hello there!")], torch.ones(1, 3))
    >>> Length("words", scale=0.5)(rollout).outcome.item(), Length(cap=4)(rollout).outcome.item()
    (1.0, 4.0)
    """

    name = "length"

    def __init__(
        self,
        unit: Literal["characters", "words", "tokens"] = "characters",
        scale: float = 1.0,
        cap: float | None = None,
    ) -> None:
        if unit not in ("characters", "words", "tokens"):
            raise ValueError(f"length(unit=) must be characters, words or tokens, not {unit!r}")
        self.unit, self.scale, self.cap = unit, float(scale), cap

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        if self.unit == "tokens":
            if "output_ids" not in rollout.inputs:
                raise ValueError(
                    "length(unit='tokens') reads the token ids of a language policy's rollout, and this one has none: "
                    "take unit: words, or characters"
                )
            sizes = [len(ids) for ids in rollout.inputs["output_ids"]]
        else:
            texts = [_said(s) or "" for s in rollout.samples]
            sizes = [len(t.split()) if self.unit == "words" else len(t) for t in texts]
        lengths = torch.tensor(sizes, dtype=torch.float32, device=rollout.mask.device)
        return Scores(self.scale * (lengths if self.cap is None else lengths.clamp(max=self.cap)))


@entry(
    "rewards.rules:exact_match", aliases=("verdict_match", "choice_match", "label_match"), tags=("rule", "verifiable")
)
class ExactMatch(RewardBase):
    """1 where the output's answer equals the expected one, else 0; both stripped, in lower case unless told.

    An output in which the pattern finds nothing, or that the policy failed to give, is the policy's failure: 0. A row
    without an expected answer is the data's: status ERROR.

    Args:
        extract: regular expression; its last match is the answer, the first group of it where there is one. Default:
            the whole output.
        key: where ``sample.hidden`` keeps the expected answer. case: whether case matters.

    >>> from rewardkit.types import Sample
    >>> samples = [Sample("2 + 2?", "I think: 5. No, answer: 4", hidden={"answer": 4})]
    >>> ExactMatch(extract=r"answer: (\\d+)")(Rollout(samples, torch.ones(1, 1))).outcome.item()
    1.0
    """

    name = "exact_match"

    def __init__(self, extract: str | None = None, key: str = "answer", case: bool = False) -> None:
        try:
            self.pattern = None if extract is None else re.compile(extract)
        except re.error as error:
            raise ValueError(f"exact_match(extract=): {extract!r} is no regular expression: {error}") from None
        self.key, self.case = key, case

    def _clean(self, text: str) -> str:
        return text.strip() if self.case else text.strip().casefold()

    def _answer(self, output: str | None) -> str | None:
        if self.pattern is None or output is None:
            return output
        matches = list(self.pattern.finditer(output))
        if not matches:
            return None
        return matches[-1].group(1 if self.pattern.groups else 0)

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        values, status = [], []
        why: list[str | None] = []
        for sample in rollout.samples:
            gold = sample.hidden.get(self.key)
            answer = self._answer(_said(sample))
            hit = gold is not None and answer is not None and self._clean(answer) == self._clean(str(gold))
            values.append(float(hit))
            status.append(ERROR if gold is None else OK)
            why.append(f"sample.hidden has no {self.key!r}" if gold is None else None)
        device = rollout.mask.device
        return Scores(
            torch.tensor(values, device=device),
            why=why if any(why) else None,
            status=torch.tensor(status, dtype=torch.long, device=device),
        )
