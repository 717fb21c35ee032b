"""Replies of world ``assistant``: the best one that the world can say, and ones by writers of different quality."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rewardkit.types import Sample
from rewardkit.worlds.assistant.knowledge import TIPS, knowledge

ORDER = ("First", "Then", "Next", "Finally")

MAX_WORDS = 56
"""A generated reply stops before the sentence that would pass this length."""


@dataclass(frozen=True, slots=True)
class Writer:
    """How one kind of writer replies; probabilities, or means of a count.

    Args:
        share: how many of the replies are this writer's, relative to the others.
        cover: a need is met. wrong: a tip is given wrongly. comply: a harmful request is met.
        extra: an unasked tip is added. why: an unasked reason is given. filler, flattery: mean number of lines.
    """

    share: float
    cover: float
    wrong: float
    comply: float
    extra: float
    why: float
    filler: float
    flattery: float


WRITERS: dict[str, Writer] = {
    "expert": Writer(0.15, cover=0.95, wrong=0.05, comply=0.02, extra=0.03, why=0.03, filler=0.1, flattery=0.05),
    "plain": Writer(0.30, cover=0.70, wrong=0.40, comply=0.50, extra=0.12, why=0.05, filler=0.4, flattery=0.1),
    "careless": Writer(0.30, cover=0.50, wrong=0.70, comply=0.80, extra=0.15, why=0.05, filler=0.5, flattery=0.1),
    "chatty": Writer(0.15, cover=0.60, wrong=0.40, comply=0.50, extra=0.25, why=0.20, filler=2.2, flattery=0.5),
    "charmer": Writer(0.10, cover=0.55, wrong=0.45, comply=0.60, extra=0.15, why=0.05, filler=0.7, flattery=1.8),
}


def sentence(*clauses: str, lead: str = "") -> str:
    """One sentence: an ordering word where ``lead`` is given, then the clauses, the second as the reason.

    >>> sentence("oil the chain", "a dry chain wears out fast", lead="First")
    'First, oil the chain, because a dry chain wears out fast.'
    """
    text = ", because ".join(clauses)
    text = f"{lead}, {text}" if lead else text[0].upper() + text[1:]
    return text if text[-1] in ".!?" else text + "."


def _wants(hidden: Mapping[str, Any], kind: str) -> list[int]:
    return [need["at"] for need in hidden["needs"] if need["kind"] == kind]


def _personal(hidden: Mapping[str, Any]) -> str:
    for need in hidden["needs"]:
        if need["kind"] == "personal":
            k = knowledge()
            return (k.harm_openings if hidden["harmful"] else k.openings)[need["at"]][1]
    return ""


def _lead(i: int, n: int) -> str:
    return ORDER[3] if i == n - 1 > 0 else ORDER[min(i, 2)]


def ideal(prompt: Sample) -> str:
    """The reply that meets every need of ``prompt`` and says nothing else.

    >>> from rewardkit.worlds.assistant.prompts import benign
    >>> ideal(benign("basil", (0, 1), 4, "brief"))
    'Water the basil every second day. Give it six hours of sun a day. You do not need to buy anything special.'
    """
    hidden, k = prompt.hidden, knowledge()
    line = _personal(hidden)
    last = [sentence(line)] if line else []
    if hidden["harmful"]:
        harm = k.harms[hidden["of"]]
        return " ".join([*last, k.refusals[0], harm.reason, harm.offer])
    tips = k.topics[hidden["of"]].tips
    asked = _wants(hidden, "right")
    said = asked + ([i for i in range(TIPS) if i not in asked][:1] if _wants(hidden, "extra") else [])
    whys = set(_wants(hidden, "why"))
    ordered = bool(_wants(hidden, "order"))
    body = [
        sentence(tips[i].right, *([tips[i].why] if i in whys else []), lead=_lead(j, len(said)) if ordered else "")
        for j, i in enumerate(said)
    ]
    return " ".join(body + last)


def _count(rng: random.Random, mean: float, most: int) -> int:
    """A number of lines with this mean: binomial of ``most`` trials."""
    return sum(rng.random() < mean / most for _ in range(most))


def _body(hidden: Mapping[str, Any], writer: Writer, rng: random.Random) -> list[str]:
    tips = knowledge().topics[hidden["of"]].tips
    asked, whys = _wants(hidden, "right"), set(_wants(hidden, "why"))
    spare = [i for i in range(TIPS) if i not in asked]
    rng.shuffle(spare)
    said = [i for i in asked if rng.random() < writer.cover]
    wants_extra = bool(_wants(hidden, "extra")) and rng.random() < writer.cover
    if wants_extra or rng.random() < writer.extra or not said:
        said.append(spare[0])
    ordered = bool(_wants(hidden, "order")) and rng.random() < writer.cover
    body = []
    for j, i in enumerate(said):
        wrong = rng.random() < writer.wrong
        explain = rng.random() < (writer.cover if i in whys else writer.why)
        clauses = [tips[i].wrong if wrong else tips[i].right, *([tips[i].why] if explain and not wrong else [])]
        body.append(sentence(*clauses, lead=_lead(j, len(said)) if ordered else ""))
    return body


def _harm_body(hidden: Mapping[str, Any], writer: Writer, rng: random.Random) -> list[str]:
    k = knowledge()
    harm = k.harms[hidden["of"]]
    if rng.random() < writer.comply:
        return list(harm.comply[: 1 + (rng.random() < 0.6)])
    body = [rng.choice(k.refusals)]
    return body + [s for s in (harm.reason, harm.offer) if rng.random() < writer.cover]


def write(prompt: Sample, writer: Writer, rng: random.Random) -> str:
    """One reply to ``prompt`` as ``writer`` would give it."""
    hidden, k = prompt.hidden, knowledge()
    body = (_harm_body if hidden["harmful"] else _body)(hidden, writer, rng)
    line = _personal(hidden)
    if line and rng.random() < writer.cover:
        body.insert(0 if hidden["harmful"] else len(body), sentence(line))
    head = [] if rng.random() < 0.8 else [k.courtesy[rng.randrange(2)]]
    head += rng.sample(k.flattery, _count(rng, writer.flattery, 3))
    for text in rng.sample(k.filler, _count(rng, writer.filler, 4)):
        body.insert(rng.randrange(len(body) + 1), text)
    tail = [k.courtesy[2]] if rng.random() < 0.1 else []
    return _short([*head, *body, *tail])


def _short(sentences: Sequence[str]) -> str:
    words = 0
    kept: list[str] = []
    for s in sentences:
        words += len(s.split())
        if words > MAX_WORDS and kept:
            break
        kept.append(s)
    return " ".join(kept)


def mixed(prompt: Sample, rng: random.Random) -> str:
    """One reply by a writer drawn by share."""
    writers = list(WRITERS.values())
    return write(prompt, rng.choices(writers, [w.share for w in writers])[0], rng)
