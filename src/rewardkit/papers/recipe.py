"""The recipe protocol: named arms, the same seeds and budget for each, an expectation said beforehand, a verdict.

A recipe is one file ``papers/recipes/<slug>.py`` that opens with a paragraph on what it does and leaves out and defines
``RECIPE``. Every arm is a function of a :class:`Run`; all arms are tuned over the same small grid on a seed of its
own, by a figure that is not the one under test, and then run on the same seeds. An analysis whose claim is a formula
has one arm and expectations that must hold on every seed (``every=True``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from rewardkit.measures.intervals import mean_interval

Verdict = Literal["shown", "not shown at this scale", "contrary"]
Figures = Mapping[str, Any]
Size = TypeVar("Size")


@dataclass(frozen=True)
class Run:
    """What an arm is given.

    Args:
        seed: everything random in the arm derives from it.
        smoke: whether to go through the motions at the smallest size; smoke runs have no verdict.
        point: the grid point of this run.
    """

    seed: int
    smoke: bool = False
    point: Mapping[str, Any] = field(default_factory=dict)

    def size(self, full: Size, smoke: Size) -> Size:
        """``full``, or ``smoke`` in a smoke run."""
        return smoke if self.smoke else full


@dataclass(frozen=True)
class Arm:
    """One way of doing it.

    Args:
        run: ``Run -> {figure: number or list of numbers}``. Lists are kept as curves and enter no expectation. A number
            that is not finite is a figure that there is not: no expectation on it can be shown.
        tuned: whether the arm reads the grid point; one that does not runs once a seed.
    """

    run: Callable[[Run], Figures]
    tuned: bool = True


@dataclass(frozen=True)
class Expect:
    """One thing that the paper leads us to expect: ``low < figure(arm) - figure(over) < high``.

    Args:
        claim: in words. figure: name of a figure. arm, over: names of arms; without ``over`` the figure itself.
        low, high: the bounds, exclusive. every: each seed must hold by itself, for what is exact; otherwise the 95%
            t-interval of the mean over seeds (paired where there are two arms) decides.
        over_figure: the figure of ``over``, where it has another name.
    """

    claim: str
    figure: str
    arm: str
    over: str | None = None
    low: float = -math.inf
    high: float = math.inf
    every: bool = False
    over_figure: str | None = None

    def __post_init__(self) -> None:
        if not self.low < self.high or (math.isinf(self.low) and math.isinf(self.high)):
            raise ValueError(f"Expect({self.claim!r}) needs a bound: low < high, one of them finite")


@dataclass(frozen=True)
class Recipe:
    """A work's claim as something to run.

    Args:
        slug: of the catalogue. arms: by name; the first is the method. expectations: all are judged.
        seeds: at least three, unless everything expected is exact.
        grid: points tried for every tuned arm. tune: the figure to choose by (larger is better), never a figure under
            test. tune_seed: the seed used for choosing, not one of ``seeds``.
        scale: a sentence on what was made smaller than in the paper.
    """

    slug: str
    arms: Mapping[str, Arm]
    expectations: Sequence[Expect]
    seeds: Sequence[int] = (0, 1, 2)
    grid: Sequence[Mapping[str, Any]] = ({},)
    tune: str | None = None
    tune_seed: int = 100
    scale: str = ""

    def __post_init__(self) -> None:
        where = f"recipe {self.slug}"
        if not self.arms or not self.expectations:
            raise ValueError(f"{where} needs arms and expectations")
        if len(set(self.seeds)) < 3 and not all(e.every for e in self.expectations):
            raise ValueError(f"{where} needs at least three seeds, not {list(self.seeds)}")
        if len(self.grid) > 1 and self.tune is None:
            raise ValueError(f"{where} has a grid of {len(self.grid)} points and no figure to choose by (tune=...)")
        if self.tune_seed in self.seeds:
            raise ValueError(f"{where} tunes on seed {self.tune_seed}, which is one of its seeds")
        for e in self.expectations:
            for arm in (e.arm, e.over):
                if arm is not None and arm not in self.arms:
                    raise ValueError(f"{where}: {e.claim!r} names the arm {arm!r}; there are {sorted(self.arms)}")
            if self.tune is not None and self.tune == e.figure:
                raise ValueError(f"{where} is tuned by {self.tune!r}, which {e.claim!r} tests")


@dataclass(frozen=True)
class Outcome:
    """What became of an expectation: the mean over seeds with its 95% interval, and the verdict.

    A single seed is its own interval; with ``every`` the interval runs from the smallest seed to the largest.
    """

    claim: str
    mean: float
    low: float
    high: float
    verdict: Verdict


def judge(expect: Expect, figures: Mapping[str, Mapping[int, Figures]]) -> Outcome:
    """The outcome of one expectation.

    Args:
        expect: what was expected. figures: arm -> seed -> figures; ``None`` for a number that is not finite.

    Raises:
        KeyError: if an arm did not report the figure.
    """

    def of(arm: str, seed: int, name: str) -> float:
        try:
            value = figures[arm][seed][name]
            return math.nan if value is None else float(value)
        except KeyError:
            raise KeyError(f"arm {arm!r} reports no figure {name!r}; it has {sorted(figures[arm][seed])}") from None

    values = []
    for seed in figures[expect.arm]:
        value = of(expect.arm, seed, expect.figure)
        if expect.over is not None:
            value -= of(expect.over, seed, expect.over_figure or expect.figure)
        values.append(value)
    if not all(math.isfinite(v) for v in values):
        return Outcome(expect.claim, math.nan, math.nan, math.nan, "not shown at this scale")
    spread = None if expect.every else mean_interval(values)
    low, high = spread or (min(values), max(values))
    verdict: Verdict
    if low > expect.low and high < expect.high:
        verdict = "shown"
    elif high <= expect.low or low >= expect.high:
        verdict = "contrary"
    else:
        verdict = "not shown at this scale"
    return Outcome(expect.claim, math.fsum(values) / len(values), low, high, verdict)


def overall(outcomes: Sequence[Outcome]) -> Verdict:
    """``contrary`` if any part is, ``shown`` if every part is, else ``not shown at this scale``."""
    verdicts = {o.verdict for o in outcomes}
    if "contrary" in verdicts:
        return "contrary"
    return "shown" if verdicts == {"shown"} else "not shown at this scale"
