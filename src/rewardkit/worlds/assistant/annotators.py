"""Simulated annotators of world ``assistant``: noisy, fond of long replies, in groups that disagree.

An annotator sees the five parts of the gold score, weighs them in his own way and adds what should not count::

    utility(reply) = sum of weight x part + length x words / 10 + flattered x tanh(compliments)
    P(a wins), P(b wins), P(tie)  in proportion to  e^(u_a / t), e^(u_b / t), tie e^((u_a + u_b) / 2t)

which is Davidson's model of ties on Bradley-Terry (Davidson 1970, "On extending the Bradley-Terry model to accommodate
ties in paired comparison experiments"): ties are likely where the replies are close. ``t`` is the temperature.

A verdict is a function of the pool's seed, the annotator and the two replies alone: the same person asked the same
pair again, in either order, says the same, and the order of questions changes nothing.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rewardkit.registry import entry
from rewardkit.types import Judgement, Sample
from rewardkit.worlds.assistant.gold import WEIGHTS, parts_of, total
from rewardkit.worlds.assistant.parse import read


@dataclass(frozen=True, slots=True)
class Taste:
    """What a group of annotators goes by.

    Args:
        share: the group's share of the pool.
        weights: weight of each part of gold.
        length: liking of ten more words. flattered: liking of the first compliment, less for the next.
        temperature: of the choice, in units of utility. tie: Davidson's tie parameter, 0 for no ties.
    """

    share: float
    weights: Mapping[str, float]
    length: float
    flattered: float
    temperature: float
    tie: float = 0.15


TASTES: dict[str, Taste] = {
    "careful": Taste(0.55, WEIGHTS, length=0.0, flattered=0.0, temperature=0.16),
    "hurried": Taste(
        0.25,
        {"helpful": 1.0, "correct": 0.3, "harmless": 1.0, "concise": 0.2, "style": 0.2},
        length=0.12,
        flattered=0.0,
        temperature=0.22,
    ),
    "warm": Taste(
        0.2,
        {"helpful": 0.9, "correct": 0.5, "harmless": 0.8, "concise": 0.4, "style": 0.2},
        length=0.04,
        flattered=0.3,
        temperature=0.22,
    ),
}
"""Careful readers; people in a hurry, who check little and take length for effort; and people who like a kind word."""


@dataclass(frozen=True, slots=True)
class Person:
    """One annotator: a name, a group and a taste of his own."""

    name: str
    group: str
    taste: Taste

    def utility(self, sample: Sample) -> float:
        """How much this person likes a reply."""
        text = str(sample.output)
        kinds = [s.unit.kind for s in read(text) if s.unit is not None]
        liked = total(parts_of(text, sample.hidden), self.taste.weights)
        liked += self.taste.length * len(text.split()) / 10
        return liked + self.taste.flattered * math.tanh(kinds.count("flattery"))

    def chances(self, a: Sample, b: Sample) -> tuple[float, float, float]:
        """Probability that ``a`` wins, that ``b`` wins, of a tie."""
        half = (self.utility(a) - self.utility(b)) / (2 * self.taste.temperature)
        peak = abs(half)
        first, second, tie = math.exp(half - peak), math.exp(-half - peak), self.taste.tie * math.exp(-peak)
        whole = first + second + tie
        return first / whole, second / whole, tie / whole


def _draw(*key: object) -> float:
    """A number in [0, 1) that is a function of the key, alike on every machine."""
    digest = hashlib.blake2b("\x1f".join(map(str, key)).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53


def people(n: int, seed: int, tastes: Mapping[str, Taste] = TASTES) -> list[Person]:
    """``n`` persons, groups by share (largest remainder), each a little different from his group.

    Raises:
        ValueError: if there are fewer persons than groups.
    """
    if n < len(tastes):
        raise ValueError(f"a pool of {len(tastes)} groups needs at least as many annotators, not {n}")
    whole = sum(t.share for t in tastes.values())
    exact = {g: t.share / whole * n for g, t in tastes.items()}
    count = {g: max(1, int(x)) for g, x in exact.items()}
    for g in sorted(exact, key=lambda g: count[g] - exact[g]):
        count[g] += sum(count.values()) < n
    while sum(count.values()) > n:
        count[max(count, key=lambda g: count[g] - exact[g])] -= 1
    rng = random.Random(f"assistant annotators {seed}")
    found = []
    for group, taste in tastes.items():
        for i in range(count[group]):
            spread = [math.exp(0.2 * rng.gauss(0, 1)) for _ in range(2)]
            own = replace(taste, length=taste.length * spread[0], temperature=taste.temperature * spread[1])
            found.append(Person(f"{group}-{i + 1}", group, own))
    return found


@entry("worlds.assistant:annotators", aliases=("feedback.annotators:simulated",), tags=("annotator", "simulated"))
class Pool:
    """Simulated annotators who share the work: an :class:`~rewardkit.protocols.Annotator`.

    Args:
        n: how many persons.
        seed: fixes the persons, who judges which pair, and their noise.
        votes: how many different persons judge each pair.
        tastes: the groups.

    >>> from dataclasses import replace
    >>> from rewardkit.worlds.assistant.prompts import benign
    >>> asked = benign("bike", (0,), 0, "none")
    >>> good = replace(asked, output="Oil the chain every two weeks.")
    >>> bad = replace(asked, output="Wash the chain with salt water.")
    >>> [verdict] = Pool(seed=0).compare([good], [bad])
    >>> verdict.rank, verdict.annotator.split("-")[0] in TASTES
    ((0, 1), True)
    """

    def __init__(self, n: int = 12, seed: int = 0, *, votes: int = 1, tastes: Mapping[str, Taste] = TASTES) -> None:
        if not 1 <= votes <= n:
            raise ValueError(f"votes must be between 1 and the {n} annotators, not {votes}")
        self.people = people(n, seed, tastes)
        self.seed = seed
        self.votes = votes
        self._asked: list[tuple[Sample, ...]] = []

    def assigned(self, a: Sample, b: Sample) -> list[Person]:
        """Who judges this pair."""
        pair = sorted((str(a.output), str(b.output)))
        order = sorted(self.people, key=lambda p: _draw(self.seed, "who", p.name, a.prompt, *pair))
        return order[: self.votes]

    def judge(self, person: Person, a: Sample, b: Sample) -> Judgement:
        """One person's verdict on one pair.

        Raises:
            ValueError: if the two samples do not answer the same prompt.
        """
        if a.asked != b.asked:
            raise ValueError(f"a comparison is of two replies to one prompt, not to {a.asked!r} and {b.asked!r}")
        swapped = str(b.output) < str(a.output)
        first, second = (b, a) if swapped else (a, b)
        wins, loses, _ = person.chances(first, second)
        draw = _draw(self.seed, "verdict", person.name, a.prompt, first.output, second.output)
        rank = (0, 0)
        if first.output != second.output:
            rank = (0, 1) if draw < wins else (1, 0) if draw < wins + loses else (0, 0)
        return Judgement((a, b), rank=rank[::-1] if swapped else rank, annotator=person.name)

    def compare(self, a: Sequence[Sample], b: Sequence[Sample]) -> list[Judgement]:
        """Judgements of ``a[i]`` against ``b[i]``, ``votes`` each, in order."""
        return [self.judge(p, x, y) for x, y in zip(a, b, strict=True) for p in self.assigned(x, y)]

    def rank(self, groups: Sequence[Sequence[Sample]]) -> list[Judgement]:
        """One person's ranking of each group of replies to one prompt, best first by ``utility / t`` + Gumbel noise.

        That is the model of Plackett and Luce: every pair within it is ordered by the same Bradley-Terry law as in
        :meth:`compare`, without its ties, and k replies give k (k - 1) / 2 comparisons for one reading of each.
        Identical replies share a place.

        Raises:
            ValueError: if the replies of a group do not answer the same prompt.
        """
        found = []
        for replies in groups:
            if len({s.asked for s in replies}) != 1:
                raise ValueError("a ranking is of replies to one prompt")
            texts = sorted(str(s.output) for s in replies)
            person = min(self.people, key=lambda p: _draw(self.seed, "who", p.name, replies[0].prompt, *texts))
            liked = [self._liked(person, s) for s in replies]
            order = sorted(set(liked), reverse=True)
            rank = tuple(order.index(x) for x in liked)
            found.append(Judgement(tuple(replies), rank=rank, annotator=person.name))
        return found

    def _liked(self, person: Person, s: Sample) -> float:
        """Noisy utility in units of the person's temperature, the same whenever it is asked."""
        noise = -math.log(-math.log(max(_draw(self.seed, "place", person.name, s.prompt, s.output), 2.0**-60)))
        return person.utility(s) / person.taste.temperature + noise

    def ask(self, judgements: Sequence[tuple[Sample, ...]]) -> None:
        """Queue pairs to be judged.

        Raises:
            ValueError: if an entry is not a pair.
        """
        for items in judgements:
            if len(items) != 2:
                raise ValueError(f"these annotators compare two replies, not {len(items)}")
        self._asked.extend(judgements)

    def poll(self) -> list[Judgement]:
        """The verdicts on everything asked since the last call."""
        asked, self._asked = self._asked, []
        return self.compare([x for x, _ in asked], [y for _, y in asked])
