"""Columns to judgements and samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rewardkit.data import DataError, read, read_judgements, read_prompts, read_samples
from rewardkit.types import Judgement, Sample

USER = {"role": "user", "content": "Hi"}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def one(tmp_path: Path, row: dict[str, Any], **options: Any) -> Any:
    """The only item of a file of one row."""
    (item,) = read(write(tmp_path, row), **options)
    return item


def write(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


PAIR = Judgement((Sample([USER], [said("good")]), Sample([USER], [said("bad")])), rank=(0, 1))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [USER], "chosen": [said("good")], "rejected": [said("bad")]},
        {"prompt": [USER], "chosen": said("good"), "rejected": said("bad")},
        {"chosen": [USER, said("good")], "rejected": [USER, said("bad")]},
        {"prompt": [USER], "chosen": [USER, said("good")], "rejected": [USER, said("bad")]},
        {"prompt": "Hi", "chosen": [USER, said("good")], "rejected": [USER, said("bad")]},
        {"prompt": "Hi", "chosen": [said("good")], "rejected": [said("bad")]},
        {"prompt": [USER], "chosen": "good", "rejected": "bad"},
        {
            "conversations": [{"from": "human", "value": "Hi"}],
            "chosen": {"from": "gpt", "value": "good"},
            "rejected": {"from": "gpt", "value": "bad"},
        },
        {
            "prompt": {"role": ["user"], "content": ["Hi"]},
            "chosen": {"role": ["assistant"], "content": ["good"]},
            "rejected": {"role": ["assistant"], "content": ["bad"]},
        },
        {"prompt": [USER], "completions": ["good", "bad"], "ranks": [1, 2]},
        {"prompt": [USER], "responses": ["good", "bad"], "ranking": [0, 1]},
    ],
)
def test_all_published_forms_of_a_chat_comparison_are_one_judgement(tmp_path: Path, row: dict[str, Any]) -> None:
    assert one(tmp_path, row) == PAIR


HH = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Tell me\n\nAssistant:"


def test_transcripts_share_their_prompt_to_the_letter(tmp_path: Path) -> None:
    """R18: prompt + output is the transcript, so no token of the prompt is lost or invented."""
    item = one(tmp_path, {"chosen": HH + " No.", "rejected": HH + " Now."})
    assert item.items == (Sample(HH, " No."), Sample(HH, " Now."))


def test_transcripts_that_differ_before_the_last_turn_keep_the_turns_and_are_counted(tmp_path: Path) -> None:
    first = "\n\nHuman: Hi\n\nAssistant:"
    path = write(tmp_path, {"chosen": first + " A", "rejected": first + " B\n\nHuman: What?\n\nAssistant: C"})
    reader = read_judgements(path)
    (item,) = reader
    assert [s.prompt for s in item.items] == [first, first]
    assert item.items[1].output == " B\n\nHuman: What?\n\nAssistant: C"
    assert reader.report.noted == {"differs early": 1}
    (chat,) = read_judgements(path, as_messages=True)
    assert chat.items[1].output == [said("B"), {"role": "user", "content": "What?"}, said("C")]


def test_dialogues_in_messages_that_differ_early_follow_the_same_rule(tmp_path: Path) -> None:
    more = {"role": "user", "content": "What?"}
    reader = read_judgements(
        write(tmp_path, {"chosen": [USER, said("A")], "rejected": [USER, said("B"), more, said("C")]})
    )
    (item,) = reader
    assert item.items[0].prompt == item.items[1].prompt == [USER]
    assert item.items[1].output == [said("B"), more, said("C")]
    assert reader.report.noted == {"differs early": 1}


def test_a_common_beginning_of_the_completions_stays_with_the_completions(tmp_path: Path) -> None:
    item = one(tmp_path, {"chosen": HH + " The answer is 4", "rejected": HH + " The answer is 5"})
    assert item.items[0].output == " The answer is 4"


def test_prompts_split_alike_when_the_sides_are_swapped(tmp_path: Path) -> None:
    """R23: nothing is done to chosen that is not done to rejected."""
    rows = [
        {"chosen": HH + " No.", "rejected": HH + " Now.\n\nHuman: So?\n\nAssistant: Yes."},
        {"chosen": [USER, said("A")], "rejected": [USER, said("B"), USER, said("C")]},
        {"prompt": [USER], "chosen": [USER, said("A")], "rejected": [USER, said("B")]},
        {"prompt": HH, "chosen": HH + " a", "rejected": HH + " b"},
    ]
    for row in rows:
        there = one(tmp_path, row)
        back = one(tmp_path, {**row, "chosen": row["rejected"], "rejected": row["chosen"]})
        assert there.items == back.items[::-1]


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"chosen": "\n\nHuman: a\n\nAssistant: x", "rejected": "\n\nHuman: b\n\nAssistant: y"}, "chosen"),
        ({"chosen": "no marks", "rejected": "at all"}, "chosen"),
        ({"chosen": [USER, said("a")], "rejected": [{"role": "user", "content": "Ho"}, said("b")]}, "chosen"),
        ({"prompt": HH, "chosen": HH + " a", "rejected": "\n\nHuman: other\n\nAssistant: b"}, "rejected"),
        ({"prompt": "The", "chosen": "The cat", "rejected": " dog"}, "rejected"),
        ({"prompt": "The", "chosen": " cat", "rejected": "The dog"}, "chosen"),
        ({"prompt": [USER], "chosen": [USER, said("a")], "rejected": [said("b")]}, "rejected"),
        ({"prompt": [USER], "chosen": [said("a")], "rejected": [USER, said("b")]}, "chosen"),
        ({"prompt": "other", "chosen": [USER, said("a")], "rejected": [USER, said("b")]}, "prompt"),
    ],
)
def test_prompt_that_is_not_shared_names_file_line_and_field(tmp_path: Path, row: dict[str, Any], field: str) -> None:
    """R18, R23: a prompt is a prefix of both sides, or of neither, or the row is refused."""
    path = write(tmp_path, row)
    with pytest.raises(DataError, match=rf"a\.jsonl:1: field '{field}': .*\(.+\)") as error:
        list(read(path))
    assert (error.value.path, error.value.line, error.value.field) == (str(path), 1, field)
    assert error.value.mend
    reader = read(path, on_error="skip")
    assert list(reader) == []
    assert reader.report.skipped == {"no shared prompt": 1}


def test_another_mark_can_end_the_shared_prompt(tmp_path: Path) -> None:
    item = one(tmp_path, {"chosen": "Q: 2+2\nA: 4", "rejected": "Q: 2+2\nA: 5"}, marker="\nA:")
    assert item.items == (Sample("Q: 2+2\nA:", " 4"), Sample("Q: 2+2\nA:", " 5"))


def test_plain_texts_that_repeat_the_prompt_lose_it_and_others_are_kept(tmp_path: Path) -> None:
    """R18: the prompt is never twice before the completion."""
    item = one(tmp_path, {"prompt": "The", "chosen": "The cat", "rejected": "The dog"})
    assert item.items == (Sample("The", " cat"), Sample("The", " dog"))
    item = one(tmp_path, {"prompt": "The", "chosen": " cat", "rejected": " dog"})
    assert item.items == (Sample("The", " cat"), Sample("The", " dog"))
    item = one(tmp_path, {"prompt": " ", "chosen": " cat", "rejected": "dog"})
    assert item.items == (Sample(" ", " cat"), Sample(" ", "dog"))


def test_by_another_marker_a_human_turn_is_a_text_like_any_other(tmp_path: Path) -> None:
    row = {"prompt": "Go on.", "chosen": "\n\nHuman: a", "rejected": "b"}
    with pytest.raises(DataError, match="field 'chosen': the prompt is not a prefix"):
        one(tmp_path, row)
    (item,) = read_judgements(write(tmp_path, row), marker="\nA:")
    assert item.items == (Sample("Go on.", "\n\nHuman: a"), Sample("Go on.", "b"))


@pytest.mark.parametrize(
    ("row", "item"),
    [
        ({"messages": [USER, said("Ho")]}, Sample([USER], [said("Ho")])),
        ({"messages": [USER]}, Sample([USER])),
        (
            {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]},
            Sample([USER], [said("Ho")]),
        ),
        ({"prompt": "Hi", "completion": "Ho"}, Sample("Hi", "Ho")),
        ({"prompt": [USER], "completion": [said("Ho")]}, Sample([USER], [said("Ho")])),
        ({"prompt": "Hi", "response": "Ho"}, Sample("Hi", "Ho")),
        ({"prompt": "Hi", "answer": 4, "tests": ["a"]}, Sample("Hi", hidden={"answer": 4, "tests": ["a"]})),
        ({"prompt": "Hi", "source": "hi there"}, Sample("Hi", source="hi there")),
        ({"prompt": "Hi", "completion": "Ho", "ended": "cut"}, Sample("Hi", "Ho", ended="cut")),
        ({"text": "a document", "id": 3}, Sample("", "a document", hidden={"id": 3})),
        ({"prompt": "Hi", "completion": "Ho", "label": True}, Judgement((Sample("Hi", "Ho"),), rating=(1.0,))),
        ({"prompt": "Hi", "completion": "Ho", "label": 0}, Judgement((Sample("Hi", "Ho"),), rating=(0.0,))),
        ({"messages": [USER, said("Ho")], "label": False}, Judgement((Sample([USER], [said("Ho")]),), rating=(0.0,))),
        ({"prompt": "Hi", "completion": "Ho", "score": 3}, Judgement((Sample("Hi", "Ho"),), rating=(3.0,))),
        ({"prompt": "Hi", "completion": "Ho", "rating": -0.5}, Judgement((Sample("Hi", "Ho"),), rating=(-0.5,))),
        (
            {"prompt": "Hi", "completions": ["a", "b", "c"], "ranks": [2, 1, 2]},
            Judgement((Sample("Hi", "a"), Sample("Hi", "b"), Sample("Hi", "c")), rank=(1, 0, 1)),
        ),
        (
            {"prompt": "Hi", "responses": ["a", "b"], "scores": [1, 4.5]},
            Judgement((Sample("Hi", "a"), Sample("Hi", "b")), rating=(1.0, 4.5)),
        ),
        (
            {"prompt": "Hi", "completions": ["a", "b"], "p": [0.25, 0.75]},
            Judgement((Sample("Hi", "a"), Sample("Hi", "b")), p=(0.25, 0.75)),
        ),
    ],
)
def test_columns_are_told_apart(tmp_path: Path, row: dict[str, Any], item: Any) -> None:
    assert one(tmp_path, row) == item


def test_what_else_was_said_of_a_judgement_is_kept(tmp_path: Path) -> None:
    row = {
        "prompt": "p",
        "chosen": "a",
        "rejected": "b",
        "margin": 2,
        "annotator": 7,
        "aspect": "helpful",
        "at": "2024-01-01T00:00:00+00:00",
        "note": "clear",
        "weight": 0.5,
        "spans": [[1, 0, 1, "wrong"]],
        "idx": 9,
    }
    item = one(tmp_path, row)
    assert (item.strength, item.annotator, item.aspect, item.at) == (2.0, "7", "helpful", 1704067200.0)
    assert (item.note, item.weight, item.spans) == ("clear", 0.5, ((1, 0, 1, "wrong"),))
    assert [s.hidden for s in item.items] == [{"idx": 9}, {"idx": 9}]


def test_score_of_both_sides_gives_the_strength(tmp_path: Path) -> None:
    item = one(tmp_path, {"prompt": "p", "chosen": "a", "rejected": "b", "score_chosen": 8, "score_rejected": 5.5})
    assert item.strength == 2.5


def test_mapped_columns_are_read_and_not_hidden(tmp_path: Path) -> None:
    row = {"question": "q", "better": "a", "worse": "b", "prompt": "something else", "note": 3}
    columns = {"prompt": "question", "chosen": "better", "rejected": "worse", "note": None}
    item = one(tmp_path, row, columns=columns)
    assert item == Judgement(
        tuple(Sample("q", o, hidden={"prompt": "something else", "note": 3}) for o in "ab"), rank=(0, 1)
    )
    with pytest.raises(DataError, match=r"a\.jsonl:1: field 'queston': the mapped column is missing .*question"):
        one(tmp_path, row, columns={"prompt": "queston"})


def test_named_schema_wins_over_detection(tmp_path: Path) -> None:
    row = {"prompt": "p", "completion": "c", "label": True}
    assert one(tmp_path, row, schema="completion") == Sample("p", "c", hidden={"label": True})
    with pytest.raises(ValueError, match="there is no schema 'dpo'; there are preference"):
        one(tmp_path, row, schema="dpo")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"prompt": "p", "chosen": "a", "rejected": None}], r":1: field 'rejected': null"),
        (
            [{"prompt": "p", "chosen": "a", "rejected": "b"}, {"prompt": "p", "chosen": "c"}],
            r":2: field 'rejected': the column is missing \(this row has: chosen, prompt",
        ),
        ([{"prompt": "p", "chosen": "a", "rejected": 3}], r":1: field 'rejected': text or messages wanted, not int"),
        ([{"prompt": "p", "chosen": [said("a")], "rejected": "b"}], r":1: field 'rejected': .*different kinds"),
        (
            [
                {"prompt": "p", "chosen": "a", "rejected": "b"},
                {"prompt": "p", "chosen": [said("a")], "rejected": [said("b")]},
            ],
            r":2: field 'chosen': messages here, text in line 1",
        ),
        ([{"messages": [{"role": "user"}]}], r":1: field 'messages': a message of role 'user' has no content"),
        ([{"messages": [{"role": "robot", "content": "x"}]}], r":1: field 'messages': a message has a role among"),
        ([{"messages": [said("x")]}], r":1: field 'messages': .*no prompt"),
        ([{"messages": [USER], "label": True}], r":1: field 'messages': .*needs a last message of the assistant"),
        ([{"prompt": "p", "completion": "c", "label": "good"}], r":1: field 'label': a label is yes or no, not 'good'"),
        ([{"prompt": "p", "completion": "c", "score": float("nan")}], r":1: field 'score': a finite number wanted"),
        ([{"prompt": "p", "completion": "c", "score": True}], r":1: field 'score': a finite number wanted"),
        ([{"prompt": "p", "completions": ["a", "b"], "ranks": [1]}], r":1: field 'ranks': 1 entries for 2 completions"),
        ([{"prompt": "p", "completions": ["a", "b"], "ranks": [2, 3]}], r":1: field 'ranks': places are whole numbers"),
        (
            [{"prompt": "p", "completions": ["a", [said("b")]], "ranks": [0, 1]}],
            r":1: field 'completions': text and mess",
        ),
        ([{"completions": ["a", "b"], "ranks": [0, 1]}], r":1: field 'prompt': the column is missing"),
        ([{"prompt": "p", "completions": ["a", "b"], "p": [0.9, 0.9]}], r":1: Judgement.p must be a distribution"),
        ([{"prompt": "p\ud800", "completion": "c"}], r":1: field 'prompt': character 1 is half a surrogate pair"),
        ([{"foo": 1, "bar": 2}], r":1: no schema fits the columns bar, foo \(known are"),
        ([{"prompt": "p", "chosen": "a", "rejected": "b", "at": "soon"}], r":1: field 'at': a finite number wanted"),
        ([{"prompt": "p", "chosen": "a", "rejected": "b", "spans": [3]}], r":1: field 'spans': a span is"),
        ([{"prompt": "p", "completion": "c", "ended": "somehow"}], r":1: Sample.ended must be 'done'"),
    ],
)
def test_bad_rows_name_line_field_and_mend(tmp_path: Path, rows: list[dict[str, Any]], said: str) -> None:
    path = write(tmp_path, *rows)
    with pytest.raises(DataError, match=r"a\.jsonl" + said):
        list(read(path))
    reader = read(path, on_error="skip")
    assert len(list(reader)) == len(rows) - 1
    assert sum(reader.report.skipped.values()) == 1


def test_an_error_names_the_mapped_column_as_the_file_does(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="field 'worse': null"):
        one(tmp_path, {"prompt": "p", "chosen": "a", "worse": None}, columns={"rejected": "worse"})


def test_transcripts_become_messages_on_request(tmp_path: Path) -> None:
    item = one(tmp_path, {"chosen": HH + " No. ", "rejected": HH + ""}, as_messages=True)
    prompt = [USER, said("Hello"), {"role": "user", "content": "Tell me"}]
    assert item.items == (Sample(prompt, [said("No.")]), Sample(prompt, [said("")]))
    plain = one(tmp_path, {"prompt": "Hi", "completion": " Ho"}, as_messages=True)
    assert plain == Sample([USER], [said(" Ho")])


def test_neighbouring_turns_of_one_role_become_one_message(tmp_path: Path) -> None:
    prompt = "\n\nHuman: one\n\nHuman: two\n\nAssistant:"
    assert one(tmp_path, {"prompt": prompt}, as_messages=True).prompt == [{"role": "user", "content": "one\n\ntwo"}]


def test_tool_calls_and_parts_survive(tmp_path: Path) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "add"}], "refusal": None}
    picture = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what?"}]}
    item = one(tmp_path, {"prompt": [picture], "completion": [call]})
    assert item.prompt == [picture]
    assert item.output == [{"role": "assistant", "content": None, "tool_calls": [{"name": "add"}]}]


def test_judgements_give_prompts_and_samples_to_imitate(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        {"prompt": "p", "chosen": "c", "rejected": "d"},
        {"prompt": "q", "chosen": "same", "rejected": "same"},
    )
    assert [s.output for s in read_samples(path)] == ["a", "c"]
    assert [(s.prompt, s.output) for s in read_prompts(path)] == [("p", None), ("q", None)]
    thumbs = write(
        tmp_path, {"prompt": "p", "completion": "a", "label": True}, {"prompt": "p", "completion": "b", "label": False}
    )
    assert [s.output for s in read_samples(thumbs)] == ["a"]


def test_a_source_that_judges_nothing_is_no_source_of_judgements(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"these rows \(completion\) judge nothing"):
        list(read_judgements(write(tmp_path, {"prompt": "p", "completion": "c"})))
    with pytest.raises(DataError, match=r"judge nothing"):
        list(read_judgements(write(tmp_path, {"prompt": "p", "completion": "c"}), schema="completion"))


def test_documents_are_no_prompts_unless_they_are_mapped(tmp_path: Path) -> None:
    path = write(tmp_path, {"text": "Hi"})
    with pytest.raises(DataError, match=r"a\.jsonl:1: field 'text': documents have no prompts"):
        list(read_prompts(path))
    assert list(read_prompts(path, columns={"prompt": "text"})) == [Sample("Hi")]


def test_labels_of_a_csv_are_read_in_any_case_and_as_digits(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    words = ["1", "0", "TRUE", "FALSE", "true", "False"]
    path.write_text("prompt,completion,label\n" + "".join(f"p{i},c,{w}\n" for i, w in enumerate(words)))
    assert [j.rating for j in read_judgements(path)] == [(1.0,), (0.0,)] * 3
    path.write_text("prompt,completion,label\np,c,2\n")
    with pytest.raises(DataError, match="a label is yes or no, not '2'"):
        list(read_judgements(path))


def test_a_role_that_is_no_text_is_a_located_error_and_can_be_skipped(tmp_path: Path) -> None:
    path = write(tmp_path, {"messages": [{"role": ["user"], "content": "a"}, said("b")]})
    with pytest.raises(DataError, match=r"a\.jsonl:1: field 'messages': a message has a role"):
        list(read(path))
    assert list(read(path, on_error="skip")) == []


@pytest.mark.parametrize(
    "message",
    [{"role": "user", "content": "\ud800"}, {"role": "user", "content": [{"type": "text", "text": "\ud800"}]}],
)
def test_half_a_surrogate_pair_in_messages_is_an_error(tmp_path: Path, message: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="half a surrogate pair"):
        list(read(write(tmp_path, {"messages": [message, said("b")]})))
    row = {"prompt": "p", "completions": [[said("a")], [said("b"), message]], "ranks": [0, 1]}
    with pytest.raises(DataError, match="field 'completions': character 0 is half a surrogate pair"):
        list(read(write(tmp_path, row)))
