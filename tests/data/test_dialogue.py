"""Prefixes and transcripts."""

from __future__ import annotations

import os.path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardkit.data.dialogue import (
    ASSISTANT,
    as_message,
    as_messages,
    characters,
    parse_transcript,
    shared_messages,
    shared_text,
)

pieces = st.lists(st.sampled_from(["\n\nHuman: a", "\n\nAssistant: b", "\n\nAssistant: c", "x", " "]), max_size=6).map(
    "".join
)


@given(pieces, pieces, pieces)
def test_shared_text_is_a_common_prefix_that_ends_with_the_mark_and_is_symmetric(head: str, a: str, b: str) -> None:
    """R18, R23."""
    one, two = head + a, head + b
    size = shared_text(one, two)
    assert size == shared_text(two, one)
    common = os.path.commonprefix([one, two])  # noqa: RUF071
    if ASSISTANT in common:
        assert one[:size] == two[:size]
        assert one[:size].endswith(ASSISTANT)
        assert ASSISTANT not in common[size:]
    else:
        assert size == 0


turns = st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.sampled_from("ab")), max_size=5)


@given(turns, turns, turns)
def test_shared_messages_are_the_same_on_both_sides_and_the_assistant_speaks_next(head: list, a: list, b: list) -> None:  # type: ignore[type-arg]
    """R18, R23."""
    one, two = ([{"role": r, "content": c} for r, c in head + tail] for tail in (a, b))
    size = shared_messages(one, two)
    assert size == shared_messages(two, one)
    if size:
        assert one[:size] == two[:size]
        assert one[size]["role"] == two[size]["role"] == "assistant"


def test_a_mark_that_only_one_side_completes_is_not_shared() -> None:
    assert shared_text("\n\nHuman: a\n\nAssist", "\n\nHuman: a\n\nAssistant: b") == 0


def test_text_before_the_first_turn_is_a_system_message() -> None:
    assert [m["role"] for m in parse_transcript("Be kind.\n\nHuman: a\n\nAssistant: b")] == [
        "system",
        "user",
        "assistant",
    ]


@pytest.mark.parametrize(
    "value",
    [
        "text",
        {"role": "user"},
        {"content": "x"},
        {"role": "user", "content": 3},
        None,
        {"role": ["user"], "content": "x"},
    ],
)
def test_what_is_no_message_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="message"):
        as_message(value)


def test_published_role_names_are_ours() -> None:
    value = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}, {"from": "observation", "value": "c"}]
    assert [m["role"] for m in as_messages(value)] == ["user", "assistant", "tool"]


def test_characters_count_text_in_messages_and_parts() -> None:
    assert characters([{"role": "user", "content": [{"type": "text", "text": "abc"}, {"type": "image"}]}]) == 3
    assert characters([{"role": "user", "content": "ab"}]) == 2
    assert characters(None) == 0
