"""Tool calls between a model's text and OpenAI's messages.

A message that calls tools reads ``{"role": "assistant", "content": text, "tool_calls": [{"id", "type": "function",
"function": {"name", "arguments"}}]}``, with ``arguments`` a JSON text; a tool's answer is ``{"role": "tool",
"tool_call_id", "content"}``. The tools that a prompt offers are JSON schemas in the key ``tools`` of any of its
messages: they travel with the sample, and go to the chat template as ``tools=``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Message = dict[str, Any]
Parse = Callable[[str], tuple[str, list[tuple[str, dict[str, Any]]]]]
"""What was said, and each call as name and arguments. Text that is no well-formed call stays text."""

_HERMES = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)


def hermes(text: str) -> tuple[str, list[tuple[str, dict[str, Any]]]]:
    """``<tool_call>{"name": ..., "arguments": {...}}</tool_call>``, any number of them: Hermes, Qwen.

    One call that is not JSON, or not closed, makes the whole text plain: a half of what was meant is never run.

    >>> hermes('Wait. <tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>')
    ('Wait.', [('add', {'a': 1})])
    """
    found = [_call(block, "arguments") for block in _HERMES.findall(text)]
    calls = [c for c in found if c is not None]
    if not calls or len(calls) < text.count("<tool_call>"):
        return text, []
    return _HERMES.sub("", text).strip(), calls


def bare_json(text: str) -> tuple[str, list[tuple[str, dict[str, Any]]]]:
    """The whole text is ``{"name": ..., "parameters": {...}}``: Llama 3.1 and later.

    >>> bare_json('{"name": "add", "parameters": {"a": 1}}')
    ('', [('add', {'a': 1})])
    """
    call = _call(text.strip(), "parameters")
    return (text, []) if call is None else ("", [call])


FORMATS: Mapping[str, Parse] = {"hermes": hermes, "bare_json": bare_json}


def _call(block: str, key: str) -> tuple[str, dict[str, Any]] | None:
    try:
        value = json.loads(block)
    except (ValueError, RecursionError):  # the second: a thousand brackets
        return None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get(key, {})
    return (value["name"], arguments) if isinstance(arguments, dict) else None


def assistant(text: str, parse: Parse | None = None) -> Message:
    """The assistant's message of a text; with ``parse``, its tool calls taken out of it."""
    said, calls = (text, []) if parse is None else parse(text)
    message: Message = {"role": "assistant", "content": said}
    if calls:
        message["tool_calls"] = [
            {"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
            for i, (name, arguments) in enumerate(calls)
        ]
    return message


def calls_of(message: Mapping[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Id, tool and arguments of each call in a message.

    >>> calls_of(assistant('<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>', hermes))
    [('call_0', 'add', {'a': 1})]
    """
    found = []
    for call in message.get("tool_calls") or ():
        arguments = call["function"]["arguments"]
        found.append((call["id"], call["function"]["name"], _parsed(arguments)))
    return found


def tools_of(messages: Any) -> list[dict[str, Any]]:
    """The JSON schemas that these messages offer; none for a text."""
    if isinstance(messages, str):
        return []
    return [tool for m in messages for tool in m.get("tools") or ()]


def for_template(messages: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Messages as chat templates read them: without ``tools``, and with arguments as objects, not as JSON text."""
    found = []
    for m in messages:
        plain = {k: v for k, v in m.items() if k != "tools"}
        if m.get("tool_calls"):
            plain["tool_calls"] = [
                {**c, "function": {**c["function"], "arguments": _parsed(c["function"]["arguments"])}}
                for c in m["tool_calls"]
            ]
        found.append(plain)
    return found


def _parsed(arguments: Any) -> dict[str, Any]:
    return json.loads(arguments) if isinstance(arguments, str) else arguments
