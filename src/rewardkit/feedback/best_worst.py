"""A question with two answers: which of these is the best, and which the worst?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from rewardkit.registry import entry


class BestWorst(Protocol):
    """Who is asked: a person who watches, or a simulation."""

    def __call__(self, shown: Sequence[Any]) -> tuple[int, int]: ...


@entry(
    "feedback:best_worst_query",
    tags=("annotator", "simulated"),
    source="Yu et al. 2024, ICPL, arXiv:2410.17233, section 3",
)
class SimulatedBestWorst:
    """An annotator who sees every one's hidden value with some error, and names the best and the worst.

    Args:
        value: of what is shown; hidden from whoever asks. noise: deviation of the error, in units of ``value``.
        inverted: an adversary, who names them the wrong way round. seed: of the errors.

    >>> ask = SimulatedBestWorst(len)
    >>> ask(["aa", "a", "aaa"]), ask.answers
    ((2, 1), 2)
    """

    def __init__(
        self, value: Callable[[Any], float], *, noise: float = 0.0, inverted: bool = False, seed: int = 0
    ) -> None:
        self.value, self.noise, self.inverted, self.answers = value, noise, inverted, 0
        self.chance = np.random.default_rng(seed)

    def __call__(self, shown: Sequence[Any]) -> tuple[int, int]:
        """Positions of the best and of the worst; two answers.

        Raises:
            ValueError: for fewer than two.
        """
        if len(shown) < 2:
            raise ValueError(f"best and worst of {len(shown)}: show two or more")
        self.answers += 2
        seen = np.array([self.value(x) for x in shown]) + self.noise * self.chance.normal(size=len(shown))
        best, worst = int(seen.argmax()), int(seen.argmin())
        return (worst, best) if self.inverted else (best, worst)
