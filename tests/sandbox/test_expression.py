"""Programs are computed as arithmetic says, written so that they read back, and nothing else is ever run."""

from __future__ import annotations

import math

import pytest
import torch

from rewardkit.sandbox import parse

NAMES = ("a", "b")
AT = {"a": torch.tensor([2.0, -1.0]), "b": torch.tensor([4.0, 0.0])}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * a", [5.0, -1.0]),
        ("(1 + 2) * a", [6.0, -3.0]),
        ("a - b - 1", [-3.0, -2.0]),
        ("b / a / 2", [1.0, 0.0]),
        ("-a * -b", [8.0, 0.0]),
        ("min(a, b) + max(a, b)", [6.0, -1.0]),
        ("abs(a) - exp(b * 0)", [1.0, 0.0]),
        ("a / b", [0.5, 0.0]),
        ("1.5e1 + .5", [15.5, 15.5]),
        ("exp(exp(exp(b)))", [math.exp(13), math.exp(math.e)]),
        ("1e9 * a", [1e6, -1e6]),
    ],
)
def test_values_and_round_trip(text: str, value: list[float]) -> None:
    found = parse(text, NAMES)
    torch.testing.assert_close(found(AT), torch.tensor(value), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(parse(str(found), NAMES)(AT), found(AT), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "text",
    [
        "", "a +", "a b", "(a", "a)", "min(a)", "c", "__import__('os')", "a.__class__", "a ** b", "a if b else 1",
        "neg(a)", "abs", "1; 2", "lambda: 1", "a[0]", "\n",
        "(" * 300 + "a" + ")" * 99, "-" * 300 + "a", "a+" * 300 + "a",
    ],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|feature|part of|levels|characters"):
        parse(text, NAMES)


def test_terms_add_up_to_the_whole() -> None:
    found = parse("2 * a - (b - min(a, b)) + 3", NAMES)
    assert len(found.terms()) == 4
    torch.testing.assert_close(sum(t(AT) for t in found.terms()), found(AT))
