"""The small language of the world: names, relations, questions, and the tokenizer with its chat template."""

from __future__ import annotations

from functools import cache
from typing import Any

from rewardkit.policies.language.words import word_tokenizer

NAMES = ("ann", "bob", "cat", "dan", "eve", "fay", "gus", "hal", "ida", "jon", "kim", "leo")
RELATIONS = ("mother", "boss", "friend", "doctor")

CALL = '<tool_call>\n{"name": "lookup", "arguments": {"query": "'
CLOSE = '"}}\n</tool_call>'
ROLES = ("<|tools|>", "<|user|>", "<|assistant|>", "<|tool|>")

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% if tools %}{{ '<|tools|>' }}"
    "{% for t in tools %}{{ ' ' + t.function.name }}{% endfor %}"
    "{{ eos_token }}{% endif %}"
    "{% for m in messages %}"
    "{{ '<|' + m.role + '|>' + m.content }}"
    "{% for c in m.tool_calls or [] %}"
    '{{ \'<tool_call>\\n{"name": "\' + c.function.name + \'", "arguments": \' }}'
    "{{ c.function.arguments | tojson + '}\\n</tool_call>' }}"
    "{% endfor %}"
    "{{ eos_token }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""Hermes's form of a call. Of a tool's schema it shows the name alone: the model has learned the rest."""


@cache
def tokenizer() -> Any:
    """A token for each word with the space before it, one each for the beginning and the end of a call."""
    words = [f" {w}" for w in (*NAMES, *RELATIONS, "what", "is", "the", "of", "lookup", "?")]
    return word_tokenizer([*ROLES, CALL, CLOSE, *words], unknown=" ?", chat_template=CHAT_TEMPLATE)


def question(name: str, relations: tuple[str, ...]) -> str:
    """The question whose first hop is ``relations[0]`` of ``name``.

    >>> question("ann", ("mother", "boss"))
    ' what is the boss of the mother of ann ?'
    """
    return " what is" + "".join(f" the {r} of" for r in reversed(relations)) + f" {name} ?"


def call(relation: str, name: str) -> str:
    """The text that looks up a relation of someone."""
    return f"{CALL} {relation} {name}{CLOSE}"
