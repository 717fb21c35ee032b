"""Text and chat messages: normalising messages, ``\\n\\nHuman: ... \\n\\nAssistant: ...`` transcripts, shared prefixes.

A *text* is a ``str``. *Messages* are ``[{"role", "content", ...}, ...]``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

Message = dict[str, Any]
Messages = list[Message]

ASSISTANT = "\n\nAssistant:"
HUMAN = "\n\nHuman:"
_TURN = re.compile(r"\n\n(Human|Assistant):")

ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "function_call": "assistant",
    "system": "system",
    "developer": "developer",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
"""Published role names and ours."""


def as_message(value: Any) -> Message:
    """One message from ``{"role", "content"}`` or ``{"from", "value"}``; keys that are null are left out.

    Raises:
        ValueError: saying what is missing or unknown.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"a message is an object, not {type(value).__name__}")
    role, content = (
        (value.get("role"), value.get("content")) if "role" in value else (value.get("from"), value.get("value"))
    )
    if not isinstance(role, str) or role not in ROLES:
        raise ValueError(f"a message has a role among {sorted(set(ROLES))}, not {role!r}")
    if content is not None and not isinstance(content, (str, list)):
        raise ValueError(f"the content of a message is text or a list of parts, not {type(content).__name__}")
    rest = {k: v for k, v in value.items() if k not in ("role", "content", "from", "value") and v is not None}
    if content is None and not rest:
        raise ValueError(f"a message of role {role!r} has no content")
    return {"role": ROLES[role], "content": content, **rest}


def as_messages(value: Any) -> Messages:
    """Messages from a list of messages, one message, or a table's struct of lists.

    Raises:
        ValueError: saying what is wrong.
    """
    if isinstance(value, Mapping):
        columns = list(value.values())
        if columns and all(isinstance(c, list) for c in columns) and len({len(c) for c in columns}) == 1:
            return [as_message(dict(zip(value, row, strict=True))) for row in zip(*columns, strict=True)]
        return [as_message(value)]
    if not isinstance(value, Sequence) or isinstance(value, (str, bytes)):
        raise ValueError(f"messages are a list of objects, not {type(value).__name__}")
    return [as_message(m) for m in value]


def characters(value: Any) -> int:
    """Characters of a text, or of all text in messages; 0 for anything else."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(characters(m.get("content") or m.get("text")) for m in value if isinstance(m, Mapping))
    return 0


def cut(value: str | Messages, limit: int) -> str | Messages:
    """The first ``limit`` characters; of messages, whole ones and the first part of the one that passes the limit."""
    if isinstance(value, str):
        return value[:limit]
    kept: Messages = []
    for message in value:
        size = characters([message])
        if size > limit:
            if isinstance(message["content"], str) and limit:
                kept.append({**message, "content": message["content"][:limit]})
            break
        kept.append(message)
        limit -= size
    return kept


def shared_text(chosen: str, rejected: str, marker: str = ASSISTANT) -> int:
    """Length of the prompt that two transcripts share: it ends with the last ``marker`` inside their common prefix.

    What follows is each side's completion, further turns included where the two differ before the last turn.
    Symmetric in its arguments. 0 where they share no marker.

    >>> a, b = "\\n\\nHuman: Hi\\n\\nAssistant: Hello", "\\n\\nHuman: Hi\\n\\nAssistant: Hey"
    >>> a[:shared_text(a, b)]
    '\\n\\nHuman: Hi\\n\\nAssistant:'
    """
    pairs = enumerate(zip(chosen, rejected, strict=False))
    common = next((i for i, (a, b) in pairs if a != b), min(len(chosen), len(rejected)))
    place = chosen.rfind(marker, 0, common)
    return 0 if place < 0 else place + len(marker)


def shared_messages(chosen: Messages, rejected: Messages) -> int:
    """Number of messages of the prompt that two dialogues share: after it, both let the assistant speak, and differ.

    The rule of :func:`shared_text` for messages. 0 where there is no such place.
    """
    limit = min(len(chosen), len(rejected))
    common = next((i for i in range(limit) if chosen[i] != rejected[i]), limit - 1)
    for place in range(common, 0, -1):
        if chosen[place]["role"] == rejected[place]["role"] == "assistant":
            return place
    return 0


def parse_transcript(text: str) -> Messages:
    """Messages of a ``\\n\\nHuman: ... \\n\\nAssistant: ...`` transcript; a text without these marks is one user turn.

    Space around a turn goes. A last turn that is still empty is left out. Text before the first mark is a system
    message. Neighbouring turns of one role become one, joined by a blank line, because chat templates refuse them.

    >>> parse_transcript("\\n\\nHuman: Hi\\n\\nAssistant:")
    [{'role': 'user', 'content': 'Hi'}]
    """
    head, *turns = _TURN.split(text)
    if not turns:
        return [{"role": "user", "content": text}]
    messages: Messages = [{"role": "system", "content": head.strip()}] if head.strip() else []
    for who, said in zip(turns[::2], turns[1::2], strict=True):
        role = "user" if who == "Human" else "assistant"
        content = said.strip()
        if not content:
            continue
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += "\n\n" + content
        else:
            messages.append({"role": role, "content": content})
    return messages


def parse_completion(text: str) -> Messages:
    """The assistant's turn with which ``text`` begins, without surrounding space, and the turns that follow it.

    >>> parse_completion(" Hello")
    [{'role': 'assistant', 'content': 'Hello'}]
    """
    return parse_transcript(ASSISTANT + text) or [{"role": "assistant", "content": ""}]
