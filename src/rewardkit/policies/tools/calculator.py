"""A calculator that parses: nothing that a model writes is ever evaluated as code."""

from __future__ import annotations

import re
from fractions import Fraction

from rewardkit.registry import entry

_TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d+)?)|(\*\*|[-+*/%()]))")
LARGEST = 10**30
"""Beyond this, of an intermediate result, or of the numbers that a power is made of, the calculator refuses."""


@entry("policies:calculator", tags=("tool",))
def calculate(expression: str) -> str:
    """Evaluate an arithmetic expression exactly.

    Args:
        expression: numbers, + - * / % **, brackets. For example 2 * (3 + 4).

    >>> calculate("2 * (3 + 4) / 4"), calculate("1/3"), calculate("7 % 4 - 5")
    ('3.5', '0.3333333333', '-2')
    """
    value = _Parser(expression).whole()
    if value.denominator == 1:
        return str(value.numerator)
    return f"{float(value):.10g}"


class _Parser:
    """Recursive descent over the usual grammar; ``**`` binds most tightly and to the right, then the sign."""

    def __init__(self, text: str) -> None:
        self.tokens: list[str] = []
        place = 0
        while place < len(text.rstrip()):
            found = _TOKEN.match(text, place)
            if found is None:
                raise ValueError(f"no arithmetic at {text[place:].strip()[:10]!r}")
            self.tokens.append(found.group(1) or found.group(2))
            place = found.end()
        if len(self.tokens) > 1000:
            raise ValueError("the expression is too long")
        self.at = self.depth = 0

    def whole(self) -> Fraction:
        value = self.sum()
        if self.at < len(self.tokens):
            raise ValueError(f"unexpected {self.tokens[self.at]!r}")
        return value

    def take(self, *wanted: str) -> str | None:
        if self.at < len(self.tokens) and self.tokens[self.at] in wanted:
            self.at += 1
            return self.tokens[self.at - 1]
        return None

    def sum(self) -> Fraction:
        value = self.product()
        while sign := self.take("+", "-"):
            other = self.product()
            value = _small(value + other if sign == "+" else value - other)
        return value

    def product(self) -> Fraction:
        value = self.signed()
        while sign := self.take("*", "/", "%"):
            other = self.signed()
            if sign != "*" and other == 0:
                raise ValueError("division by zero")
            value = _small(value * other if sign == "*" else value / other if sign == "/" else value % other)
        return value

    def signed(self) -> Fraction:
        if sign := self.take("+", "-"):
            value = self.nested(self.signed)
            return -value if sign == "-" else value
        base = self.atom()
        if not self.take("**"):
            return base
        power = self.nested(self.signed)
        if power.denominator != 1 or abs(power) > 100:
            raise ValueError("powers are whole numbers up to 100")
        if base == 0 and power < 0:
            raise ValueError("division by zero")
        return _small(base**power.numerator)

    def nested(self, rule) -> Fraction:  # type: ignore[no-untyped-def]
        self.depth += 1
        if self.depth > 50:
            raise ValueError("the expression is nested too deeply")
        value: Fraction = rule()
        self.depth -= 1
        return value

    def atom(self) -> Fraction:
        if self.take("("):
            value = self.nested(self.sum)
            if not self.take(")"):
                raise ValueError("a bracket is not closed")
            return value
        if self.at == len(self.tokens) or not self.tokens[self.at][0].isdigit():
            raise ValueError(f"a number is missing at {' '.join(self.tokens[self.at :])[:10]!r}")
        self.at += 1
        return _small(Fraction(self.tokens[self.at - 1]))


def _small(value: Fraction) -> Fraction:
    if max(abs(value.numerator), value.denominator) > LARGEST:
        raise ValueError("the number is too large")
    return value
