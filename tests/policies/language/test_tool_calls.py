"""Tool calls between text and messages."""

from __future__ import annotations

import json

import pytest

from rewardkit.policies.language.tool_calls import assistant, bare_json, calls_of, for_template, hermes, tools_of

CALL = '<tool_call>\n{"name": "find", "arguments": {"q": "a"}}\n</tool_call>'


def test_several_calls_are_taken_out_of_the_text_in_order() -> None:
    message = assistant(f"First. {CALL} {CALL.replace('find', 'add')}", hermes)
    assert message["content"] == "First."
    assert [c["id"] for c in message["tool_calls"]] == ["call_0", "call_1"]
    assert [(name, args) for _, name, args in calls_of(message)] == [("find", {"q": "a"}), ("add", {"q": "a"})]
    assert isinstance(message["tool_calls"][0]["function"]["arguments"], str)


@pytest.mark.parametrize(
    "text",
    [
        "no call",
        "<tool_call>{not json}</tool_call>",
        "<tool_call>[1]</tool_call>",
        '<tool_call>{"name": 3}</tool_call>',
        '<tool_call>{"name": "f", "arguments": [1]}</tool_call>',
        f"{CALL}<tool_call>broken</tool_call>",
        '<tool_call>{"name": "f"}',
        f'{CALL}<tool_call>{{"name": "f"',
        "<tool_call>" + 100_000 * "[" + "</tool_call>",
    ],
)
def test_what_is_no_well_formed_call_stays_text(text: str) -> None:
    assert assistant(text, hermes) == {"role": "assistant", "content": text}


def test_a_text_that_is_not_a_call_is_no_bare_call() -> None:
    assert bare_json('say {"name": "f"}') == ('say {"name": "f"}', [])


def test_templates_get_arguments_as_objects_and_no_tools() -> None:
    message = assistant(CALL, hermes)
    [plain] = for_template([{**message, "tools": [{"type": "function"}]}])
    assert "tools" not in plain
    assert plain["tool_calls"][0]["function"]["arguments"] == {"q": "a"}
    assert json.loads(message["tool_calls"][0]["function"]["arguments"]) == {"q": "a"}
    assert tools_of([{"role": "user", "content": "x", "tools": [{"a": 1}]}]) == [{"a": 1}]
    assert tools_of("text") == []
