"""What world ``assistant`` knows: topics with tips, mistakes and reasons, requests to refuse, and lines of small talk.

A *unit* is the least thing that a reply can say: a tip, a mistake, a reason, a refusal, a compliment. Every unit of the
world has its own words, so that a reply can be read back into units without a model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml

TIPS = 4
"""Tips a topic."""


@dataclass(frozen=True, slots=True)
class Tip:
    """A piece of advice: what the user calls it, the right advice, a common mistake, why the right one is right."""

    ask: str
    right: str
    wrong: str
    why: str


@dataclass(frozen=True, slots=True)
class Topic:
    """A question with :data:`TIPS` tips."""

    name: str
    question: str
    tips: tuple[Tip, ...]


@dataclass(frozen=True, slots=True)
class Harm:
    """A request to refuse: two sentences that would comply, why not, and the help that can be given instead."""

    name: str
    question: str
    comply: tuple[str, ...]
    reason: str
    offer: str


@dataclass(frozen=True, slots=True)
class Unit:
    """A thing that a reply can say.

    Args:
        kind: ``right``, ``wrong``, ``why``, ``personal``, ``refuse``, ``comply``, ``reason``, ``offer``,
            ``flattery``, ``filler`` or ``courtesy``.
        of: name of the topic or harm; empty where it belongs to none.
        at: number of the tip, opening or line.
        text: its words as a sentence without the full stop.
    """

    kind: str
    of: str
    at: int
    text: str

    @property
    def key(self) -> tuple[str, str, int]:
        """Kind, owner and number: what a need names."""
        return self.kind, self.of, self.at


@dataclass(frozen=True)
class Knowledge:
    """All of ``knowledge.yaml``. ``openings`` are (what the user says, the line that answers it or nothing)."""

    topics: Mapping[str, Topic]
    harms: Mapping[str, Harm]
    openings: tuple[tuple[str, str], ...]
    harm_openings: tuple[tuple[str, str], ...]
    wishes: Mapping[str, str]
    harm_wishes: Mapping[str, str]
    refusals: tuple[str, ...]
    flattery: tuple[str, ...]
    filler: tuple[str, ...]
    courtesy: tuple[str, ...]
    units: Mapping[str, Unit]
    """Unit by :func:`plain` words."""


def plain(text: str) -> str:
    """Lower case words without punctuation: what two wordings are compared by.

    >>> plain("Sorry, I cannot do that.")
    'sorry i cannot do that'
    """
    return " ".join(re.findall(r"[a-z0-9'\-]+", text.lower()))


@cache
def knowledge() -> Knowledge:
    """The world's knowledge, read once.

    Raises:
        ValueError: if two units have the same words, so that a reply could not be read back.

    >>> knowledge().topics["basil"].tips[0].right
    'water the basil every second day'
    """
    raw = yaml.safe_load(files(__package__).joinpath("knowledge.yaml").read_text(encoding="utf-8"))
    topics = {n: Topic(n, t["question"], tuple(Tip(*tip) for tip in t["tips"])) for n, t in raw["topics"].items()}
    harms = {n: Harm(n, h["question"], tuple(h["comply"]), h["reason"], h["offer"]) for n, h in raw["harms"].items()}
    openings = tuple((a, b) for a, b in raw["openings"])
    harm_openings = tuple((a, b) for a, b in raw["harm_openings"])
    found: list[Unit] = []
    for t in topics.values():
        for i, tip in enumerate(t.tips):
            found += [Unit("right", t.name, i, tip.right), Unit("wrong", t.name, i, tip.wrong)]
            found.append(Unit("why", t.name, i, tip.why))
    for h in harms.values():
        found += [Unit("comply", h.name, i, s) for i, s in enumerate(h.comply)]
        found += [Unit("reason", h.name, 0, h.reason), Unit("offer", h.name, 0, h.offer)]
    found += [Unit("personal", "", i, line) for i, (_, line) in enumerate(openings) if line]
    found += [Unit("personal", "harm", i, line) for i, (_, line) in enumerate(harm_openings) if line]
    found += [Unit("refuse", "", 0, s) for s in raw["refusals"]]
    for kind in ("flattery", "filler", "courtesy"):
        found += [Unit(kind, "", i, s) for i, s in enumerate(raw[kind])]
    units: dict[str, Unit] = {}
    for unit in found:
        if plain(unit.text) in units:
            raise ValueError(f"knowledge.yaml: {unit.text!r} is both {units[plain(unit.text)].key} and {unit.key}")
        units[plain(unit.text)] = unit
    return Knowledge(
        topics,
        harms,
        openings,
        harm_openings,
        dict(raw["wishes"]),
        dict(raw["harm_wishes"]),
        tuple(raw["refusals"]),
        tuple(raw["flattery"]),
        tuple(raw["filler"]),
        tuple(raw["courtesy"]),
        units,
    )
