"""What was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Measure:
    """What every evaluation returns.

    Args:
        value: the figure. n: how many cases it rests on. ci: 95% interval. invalid: cases that could not be
            measured, left out of ``value``. by: the same measure by category.
    """

    value: float
    n: int
    ci: tuple[float, float] | None = None
    invalid: int = 0
    by: Mapping[str, Measure] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.n < 0 or self.invalid < 0:
            raise ValueError(f"Measure.n and Measure.invalid count cases, not {self.n} and {self.invalid}")
        if self.ci is not None and self.ci[0] > self.ci[1]:
            raise ValueError(f"Measure.ci is (low, high), not {self.ci}")
