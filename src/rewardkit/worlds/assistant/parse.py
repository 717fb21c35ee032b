"""Reads any reply back into the units of the world, garbled or cut off ones too."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache, lru_cache

from rewardkit.worlds.assistant.knowledge import Unit, knowledge, plain

READABLE = 0.6
"""Least similarity of words to a known unit at which a careful reader still sees what is meant."""

CANDIDATES = 12

_LEAD = re.compile(r"^\s*(first|then|next|finally)\b,?\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Said:
    """One clause of a reply.

    Args:
        unit: the unit nearest in words, ``None`` where nothing is near.
        credit: 1 said word for word, 0 not readable as that unit; smooth between.
        words: its length. lead: whether an ordering word opened it.
    """

    unit: Unit | None
    credit: float
    words: int
    lead: bool


@cache
def _by_word() -> Mapping[str, tuple[str, ...]]:
    index: dict[str, list[str]] = defaultdict(list)
    for text in knowledge().units:
        for word in set(text.split()):
            index[word].append(text)
    return {word: tuple(texts) for word, texts in index.items()}


@lru_cache(maxsize=65536)
def nearest(words: str) -> tuple[Unit | None, float]:
    """The unit whose words are nearest to ``words`` (as :func:`plain` gives them), and the credit for saying it.

    Similarity ``s`` is the share of words in common, in order (2 matches / both lengths). Credit is
    ``3 x^2 - 2 x^3`` of ``x = (s - 0.6) / 0.4``, 0 below.

    >>> nearest("water the basil every second day")[1]
    1.0
    >>> unit, credit = nearest("water the basil every day")
    >>> unit.kind, round(credit, 2)
    ('right', 0.87)
    >>> nearest("colourless green ideas sleep")
    (None, 0.0)
    """
    units = knowledge().units
    if words in units:
        return units[words], 1.0
    mine = words.split()
    shared = Counter(text for word in set(mine) for text in _by_word().get(word, ()))
    best, similarity = None, 0.0
    for text, _ in shared.most_common(CANDIDATES):
        s = SequenceMatcher(None, mine, text.split(), autojunk=False).ratio()
        if s > similarity:
            best, similarity = text, s
    x = (similarity - READABLE) / (1 - READABLE)
    if best is None or x <= 0:
        return None, 0.0
    return units[best], x * x * (3 - 2 * x)


def sentences(text: str) -> list[str]:
    """Sentences with their end marks; what follows the last mark is a sentence too."""
    return [s.strip() for s in re.findall(r"[^.!?]+[.!?]*|[.!?]+", text) if s.strip()]


@lru_cache(maxsize=65536)
def clauses(sentence: str) -> tuple[Said, ...]:
    """What one sentence says: its main clause, and the reason where it has one."""
    lead = _LEAD.match(sentence)
    body = sentence[lead.end() :] if lead else sentence
    said = []
    for i, part in enumerate(re.split(r",?\s*\bbecause\b", body, flags=re.IGNORECASE)):
        words = plain(part)
        if words:
            unit, credit = nearest(words)
            extra = (1 if lead and i == 0 else 0) + (1 if i else 0)
            said.append(Said(unit, credit, len(words.split()) + extra, bool(lead) and i == 0))
    return tuple(said)


def read(text: str) -> list[Said]:
    """Every clause of ``text`` in order.

    >>> [s.unit.kind for s in read("First, oil the chain every two weeks, because rain makes the metal rust. Sure.")]
    ['right', 'why', 'courtesy']
    """
    return [said for s in sentences(text) for said in clauses(s)]


_SHAPE = re.compile(r"[A-Z][^.!?]*[.!?]( [A-Z][^.!?]*[.!?])*")


def wellformed(text: str) -> bool:
    """Whether a reply is sentences of the world, each word for word, with capitals, spaces and end marks in place.

    >>> wellformed("Oil the chain every two weeks. Good luck!"), wellformed("Oil the the chain. Good")
    (True, False)
    """
    return _SHAPE.fullmatch(text) is not None and all(said.credit == 1.0 for said in read(text))
