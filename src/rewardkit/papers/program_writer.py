"""A stand-in for a language model that writes reward programs: it reads the same request, and mutates at random.

It takes and gives text, as any model does; see :data:`rewardkit.loops.icpl.Writer`. It writes sums of coefficients
times a feature or a simple function of one. What an LLM would reason from the traces is one rule here: a component of
which the best policy had more than the worst, for a unit of its coefficient, is paid more; one of which it had less,
less.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

Terms = list[tuple[float, str]]
TERM = re.compile(r"\((-?[\d.]+) \* (.+?)\)(?: \+ |$)")


class Mutator:
    """The stand-in.

    Args:
        names: features that programs may use. seed: of its chances. deaf: ignore all but the number asked for, which
            makes it random search.

    >>> Mutator(["goal"], seed=0)("task: reach\\nwrite: 1 programs, one a line").count("goal") > 0
    True
    """

    def __init__(self, names: Sequence[str], *, seed: int, deaf: bool = False) -> None:
        self.names, self.deaf, self.chance = list(names), deaf, np.random.default_rng(seed)

    def __call__(self, asked: str) -> str:
        told = [(key, rest) for key, _, rest in (line.partition(": ") for line in asked.splitlines())]
        k = int(next(rest for key, rest in told if key == "write").split()[0])
        best = [rest for key, rest in told if key == "best"]
        if self.deaf or not best:
            return "\n".join(_text(self._random()) for _ in range(k))
        parents = [_terms(best[0])] * 2 + [_terms(rest) for key, rest in told if key == "was best"][-2:]
        push = self._push(told)
        return "\n".join(_text(self._mutated(parents, push)) for _ in range(k))

    def _random(self) -> Terms:
        count = min(int(self.chance.integers(2, 4)), len(self.names))
        names = self.chance.choice(self.names, count, replace=False)
        return [(self._coefficient(), self._atom(n)) for n in names]

    def _coefficient(self) -> float:
        return round(float(2.5 * self.chance.normal()), 2)

    def _atom(self, name: str) -> str:
        kind = self.chance.random()
        if kind < 0.85:
            return name
        return f"max({name}, 0.5)" if kind < 0.95 else f"exp({name})"

    def _mutated(self, parents: Sequence[Terms], push: dict[str, float]) -> Terms:
        """A parent with its coefficients moved, perhaps a term less, perhaps one more."""
        chosen = parents[int(self.chance.integers(len(parents)))]
        found = [(c + push.get(a, 0.0) * self.chance.random() + 0.7 * self.chance.normal(), a) for c, a in chosen]
        if len(found) > 2 and self.chance.random() < 0.2:
            found.pop(int(self.chance.integers(len(found))))
        absent = [n for n in self.names if n not in {a for _, a in found}]
        if absent and self.chance.random() < 0.5:
            found.append((self._coefficient(), self._atom(str(self.chance.choice(absent)))))
        return [(round(float(c), 2), a) for c, a in found]

    def _push(self, told: Sequence[tuple[str, str]]) -> dict[str, float]:
        """By atom: +2 where the best policy had more of it than the worst, -2 where less; nothing without traces."""
        had: dict[str, dict[str, float]] = {}
        for who in ("best", "worst"):
            program = next((rest for key, rest in told if key == who), "")
            finals = [float(rest.rsplit(" ", 1)[1]) for key, rest in told if key == f"trace of {who}"]
            if len(finals) == len(_terms(program)):
                had[who] = {a: f / c for (c, a), f in zip(_terms(program), finals, strict=True) if abs(c) > 1e-6}
        if len(had) < 2:
            return {}
        both = set(had["best"]) & set(had["worst"])
        return {a: 2.0 * float(np.sign(round(had["best"][a] - had["worst"][a], 3))) for a in both}


def _terms(program: str) -> Terms:
    """Coefficients and what they multiply, of a program that a mutator wrote."""
    return [(float(c), a) for c, a in TERM.findall(program)]


def _text(terms: Terms) -> str:
    return " + ".join(f"({c} * {a})" for c, a in terms)
