"""The calculator, the search tool and the game around them."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rewardkit.policies.language.tool_calls import assistant, hermes
from rewardkit.policies.tools import Search, ToolGame, calculate
from rewardkit.types import Sample


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3", "7"),
        ("(1 + 2) * 3", "9"),
        ("2 - 3 - 4", "-5"),
        ("12 / 4 / 3", "1"),
        ("-2 ** 2", "-4"),
        ("2 ** 3 ** 2", "512"),
        ("2 ** -1", "0.5"),
        ("--3", "3"),
        ("0.1 + 0.2", "0.3"),
        ("10 % 4 * 2", "4"),
    ],
)
def test_the_calculator_follows_the_usual_rules(expression: str, value: str) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    ["", "1 +", "1 / 0", "1 % 0", "0 ** -1", "(1", "1)", "1 2", "abc", "__import__('os')", "9 ** 99 ** 99", "1e9",
     "10 ** 50", "(" * 100 + "1" + ")" * 100, "2 ** 0.5", "1.", "1 + " * 1001 + "1"],
)  # fmt: skip
def test_what_is_no_arithmetic_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        calculate(expression)


def test_search_scores_are_bm25() -> None:
    search = Search(["red red ball", "blue ball", "a box"], k1=1.2, b=0.75)
    mean = 7 / 3
    rare = math.log(1 + 2.5 / 1.5)
    want = rare * 2 * 2.2 / (2 + 1.2 * (0.25 + 0.75 * 3 / mean))
    assert search.scores("Red car") == pytest.approx({0: want})
    assert search.lookup("ball") == "blue ball\nred red ball"  # the shorter document says it more densely
    assert search.lookup("nothing like it") == "Nothing found."


def call(name: str, arguments: str) -> dict[str, Any]:
    return assistant(f'<tool_call>{{"name": "{name}", "arguments": {arguments}}}</tool_call>', hermes)


def test_a_call_that_fails_is_answered_and_the_game_goes_on() -> None:
    game = ToolGame([calculate, Search(["the sky is blue"]).lookup], instructions="Use tools.")
    first = game.reset(Sample("what?"))
    assert [m["role"] for m in first] == ["system", "user"]
    assert {t["function"]["name"] for t in first[0]["tools"]} == {"calculate", "lookup"}
    assert ">>>" not in str(first)
    for message, said in [
        (call("calculate", '{"expression": "1/0"}'), "Error: division by zero"),
        (call("calculate", '{"wrong": 1}'), "Error: "),
        (call("fly", "{}"), "Error: there is no tool 'fly'; there are calculate, lookup."),
        (call("lookup", '{"query": "sky"}'), "the sky is blue"),
    ]:
        [answer], done = game.step(message)
        assert not done
        assert answer["role"] == "tool"
        assert answer["content"].startswith(said)
    assert len(game.state()["calls"]) == 4


def test_a_snapshot_brings_the_game_back() -> None:
    game = ToolGame([calculate])
    game.reset(Sample("what?"))
    game.step(call("calculate", '{"expression": "1"}'))
    back = game.snapshot()
    before = game.state()
    game.step(call("calculate", '{"expression": "2"}'))
    game.step({"role": "assistant", "content": "2"})
    assert game.state() != before
    for _ in range(2):
        back()
        assert game.state() == before
        game.step({"role": "assistant", "content": "2"})


def test_tools_have_names_of_their_own() -> None:
    with pytest.raises(ValueError, match="different names"):
        ToolGame([calculate, calculate])
