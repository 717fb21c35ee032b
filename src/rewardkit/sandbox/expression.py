"""Reward programs as expressions over named features, read and computed by a small interpreter of our own.

Nothing is executed as Python: there are numbers, names that the caller gives, ``+ - * /``, and five functions. Whatever
a model writes beside that is refused with a reason that it can be shown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rewardkit.registry import entry

FUNCTIONS = {"min": 2, "max": 2, "exp": 1, "abs": 1, "neg": 1}
"""Names and counts of arguments; ``neg`` is what a leading minus is read as."""
LONGEST, DEEPEST, LARGEST = 400, 20, 1e6
"""Characters, levels, and the size beyond which numbers are cut."""
TOKEN = re.compile(r"\s*(?:(\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+)|([A-Za-z_]\w*)|([-+*/(),]))")


@dataclass(frozen=True)
class Expression:
    """A number, a name, or an operation on expressions. ``str`` gives text that reads back as the same.

    Args:
        op: ``number``, ``name``, one of ``+ - * /``, or a function. args: what it is applied to. value: of a number or
            a name.
    """

    op: str
    args: tuple[Expression, ...] = ()
    value: float | str = 0.0

    def __call__(self, features: Mapping[str, Tensor]) -> Tensor:
        """The value for features of one shape; a division by nearly 0 gives 0, and all is cut at a million.

        Raises:
            KeyError: for a name that is not given.
        """
        if self.op == "name":
            return features[str(self.value)]
        if self.op == "number":
            return torch.full_like(next(iter(features.values())), float(self.value))
        return _computed(self.op, [a(features) for a in self.args]).nan_to_num(0.0).clamp(-LARGEST, LARGEST)

    def __str__(self) -> str:
        if self.op in ("number", "name"):
            return f"{self.value:.4g}" if self.op == "number" else str(self.value)
        if self.op == "neg":
            return f"(-{self.args[0]})"
        if self.op in FUNCTIONS:
            return f"{self.op}({', '.join(map(str, self.args))})"
        return f"({self.args[0]} {self.op} {self.args[1]})"

    def terms(self) -> list[Expression]:
        """What a sum adds up, with signs: the components of a reward.

        >>> [str(t) for t in parse("2 * a - min(a, b) + 1", ["a", "b"]).terms()]
        ['(2 * a)', '(-min(a, b))', '1']
        """
        if self.op == "+":
            return [t for a in self.args for t in a.terms()]
        if self.op == "-":
            return self.args[0].terms() + [Expression("neg", (t,)) for t in self.args[1].terms()]
        return [self]


def _computed(op: str, x: Sequence[Tensor]) -> Tensor:
    if op == "+":
        return x[0] + x[1]
    if op == "-":
        return x[0] - x[1]
    if op == "*":
        return x[0] * x[1]
    if op == "/":
        return torch.where(x[1].abs() < 1e-6, torch.zeros_like(x[0]), x[0] / x[1])
    if op == "min":
        return torch.minimum(x[0], x[1])
    if op == "max":
        return torch.maximum(x[0], x[1])
    if op == "exp":
        return x[0].clamp(max=13.0).exp()
    return x[0].abs() if op == "abs" else -x[0]


@entry("sandbox:expression", aliases=("reward_program",), tags=("sandbox",))
def parse(text: str, names: Sequence[str]) -> Expression:
    """Read an expression.

    Args:
        text: such as ``5 * goal - 0.5 * abs(row)``. names: features that it may use.

    Raises:
        ValueError: saying what is wrong and where, for anything else.

    >>> parse("2 * goal - max(mud, 0.5)", ["goal", "mud"])({"goal": torch.ones(1), "mud": torch.zeros(1)}).tolist()
    [1.5]
    >>> parse("open(goal)", ["goal"])
    Traceback (most recent call last):
        ...
    ValueError: 'open' at 0 is neither a feature (goal) nor a function (min, max, exp, abs)
    """
    if len(text) > LONGEST:
        raise ValueError(f"a program may have {LONGEST} characters, not {len(text)}")
    reader = _Reader(text, names)
    found = reader.sum(0)
    if reader.at < len(reader.tokens):
        token, where = reader.tokens[reader.at]
        raise ValueError(f"{token!r} at {where} was not expected: the expression is complete before it")
    return found


class _Reader:
    """Recursive descent: sums of products of single things."""

    def __init__(self, text: str, names: Sequence[str]) -> None:
        self.names, self.at = list(names), 0
        self.tokens: list[tuple[str, int]] = []
        place, text = 0, text.rstrip()
        while place < len(text):
            found = TOKEN.match(text, place)
            if found is None:
                raise ValueError(f"{text[place:].lstrip()[:1]!r} at {place} is no part of an expression")
            token = found.group(1) or found.group(2) or found.group(3)
            self.tokens.append((token, found.end() - len(token)))
            place = found.end()

    @property
    def next(self) -> str:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else ""

    def take(self, wanted: str = "") -> tuple[str, int]:
        if self.at >= len(self.tokens) or (wanted and self.next != wanted):
            found = repr(self.next) if self.next else "the end"
            raise ValueError(f"{wanted or 'a value'!r} was expected, not {found}")
        self.at += 1
        return self.tokens[self.at - 1]

    def sum(self, depth: int) -> Expression:
        return self._chain(("+", "-"), self.product, depth)

    def product(self, depth: int) -> Expression:
        return self._chain(("*", "/"), self.single, depth)

    def _chain(self, ops: tuple[str, str], part: Callable[[int], Expression], depth: int) -> Expression:
        found = part(depth)
        while self.next in ops:
            op, _ = self.take()
            found = Expression(op, (found, part(depth)))
        return found

    def single(self, depth: int) -> Expression:
        if depth > DEEPEST:
            raise ValueError(f"a program may be {DEEPEST} levels deep")
        token, where = self.take()
        if token == "-":
            return Expression("neg", (self.single(depth + 1),))
        if token == "(":
            inside = self.sum(depth + 1)
            self.take(")")
            return inside
        if token[0].isdigit() or token[0] == ".":
            return Expression("number", value=float(token))
        if token in FUNCTIONS and token != "neg" and self.next == "(":
            self.take("(")
            args = [self.sum(depth + 1)]
            while len(args) < FUNCTIONS[token]:
                self.take(",")
                args.append(self.sum(depth + 1))
            self.take(")")
            return Expression(token, tuple(args))
        if token in self.names:
            return Expression("name", value=token)
        known = ", ".join(f for f in FUNCTIONS if f != "neg")
        raise ValueError(
            f"{token!r} at {where} is neither a feature ({', '.join(self.names)}) nor a function ({known})"
        )
