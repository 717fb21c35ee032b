"""Comparisons of pictures by a vision-language model: it looks and reasons first, and answers in one word after."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rewardkit.registry import entry
from rewardkit.types import Judgement, Sample

LOOK = "The goal is: {goal}. Describe what each of the two images shows, and compare how far each has come towards it."
DECIDE = "In which image has the goal been achieved better? Reply with one line: FIRST, SECOND or CANNOT TELL."
ANSWERS = {"FIRST": (0, 1), "SECOND": (1, 0), "CANNOT TELL": (0, 0)}

Ask = Callable[[list[list[dict[str, Any]]]], list[str]]
"""Chat messages of several dialogues to one reply each: a policy, or the client of a server."""


class Labels(NamedTuple):
    """What a model said.

    Args:
        judgements: of the pairs whose answer could be read; ties among them, its reasons as notes. unread: numbers of
            the other pairs: the model's failure is no comparison.
    """

    judgements: list[Judgement]
    unread: list[int]


@entry(
    "feedback:vlm_pairwise_labels",
    tags=("image", "synthetic"),
    source="Wang et al. 2024 (RL-VLM-F), arXiv:2402.03681, section 4.2; Venkataraman et al. 2024, arXiv:2411.05273",
)
def vlm_pairwise_labels(
    pairs: Sequence[tuple[Sample, Sample]],
    ask: Ask,
    goal: str,
    *,
    picture: Callable[[Sample], Any] = lambda s: s.output,
    annotator: str = "vlm",
) -> Labels:
    """Two questions a pair: a free comparison of the two pictures, then a verdict in view of it.

    A tie is a judgement of equal ranks: ``bradley_terry`` reads no pair from it, and it must not become a random one.

    Args:
        ask: answers dialogues with image parts, ``{"type": "image", "image": ...}``. goal: in words. picture: of a
            sample, as ``ask`` takes it. annotator: name on the judgements.

    >>> pair = (Sample("p", "half way"), Sample("p", "there"))
    >>> said = iter((["The second is closer."], ["SECOND"]))
    >>> vlm_pairwise_labels([pair], lambda dialogues: next(said), "be there").judgements[0].rank
    (1, 0)
    """
    if not pairs:
        return Labels([], [])
    asked = [_look(picture(a), picture(b), goal) for a, b in pairs]
    reasons = ask(asked)
    follow = [
        [*d, {"role": "assistant", "content": r}, {"role": "user", "content": DECIDE}]
        for d, r in zip(asked, reasons, strict=True)
    ]
    found = Labels([], [])
    for i, (pair, reason, answer) in enumerate(zip(pairs, reasons, ask(follow), strict=True)):
        rank = _read(answer)
        if rank is None:
            found.unread.append(i)
        else:
            found.judgements.append(Judgement(pair, rank=rank, annotator=annotator, note=reason))
    return found


def _look(first: Any, second: Any, goal: str) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for name, image in (("First image:", first), ("Second image:", second)):
        parts += [{"type": "text", "text": name}, {"type": "image", "image": image}]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": LOOK.format(goal=goal)}]}]


def _read(answer: str) -> tuple[int, int] | None:
    """The ranks that an answer means: exactly one of the three words must stand in its last line."""
    lines = answer.strip().upper().splitlines() or [""]
    named = [word for word in ANSWERS if re.search(rf"\b{word}\b", lines[-1])]
    return ANSWERS[named[0]] if len(named) == 1 else None
