"""Ties, duplicates, empty and over-long outputs; real files."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from rewardkit.data import DataError, read, read_judgements, read_prompts, read_samples
from rewardkit.types import Judgement, Sample


def write(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def pair(chosen: str, rejected: str, prompt: str = "p", **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


def test_identical_outputs_are_skipped_and_counted_or_kept_as_a_tie(tmp_path: Path) -> None:
    path = write(tmp_path, pair("a", "a"), pair("a", "b"))
    reader = read_judgements(path)
    assert [j.rank for j in reader] == [(0, 1)]
    assert reader.report.skipped == {"identical": 1}
    assert reader.report.examples["identical"] == [f"{path}:1"]
    kept = read_judgements(path, keep_identical=True)
    assert [j.rank for j in kept] == [(0, 0), (0, 1)]
    assert kept.report.noted == {"tie": 1}


def test_judged_ties_are_kept_and_counted(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {"prompt": "p", "completions": ["a", "b"], "ranks": [1, 1]},
        {"prompt": "q", "completions": ["a", "b"], "ranks": [1, 2]},
    )
    reader = read_judgements(path)
    assert [(j.rank, j.tied) for j in reader] == [((0, 0), True), ((0, 1), False)]
    assert reader.report.noted == {"tie": 1}


def test_exact_duplicates_are_skipped_and_counted_unless_kept(tmp_path: Path) -> None:
    path = write(tmp_path, pair("a", "b", idx=1), pair("a", "b", idx=2), pair("a", "b", annotator="x"), pair("a", "c"))
    reader = read_judgements(path)
    assert [j.items[1].output for j in reader] == ["b", "b", "c"]
    assert reader.report.skipped == {"duplicate": 1}
    assert len(list(read_judgements(path, keep_duplicates=True))) == 4


def test_a_pair_written_the_other_way_round_is_a_duplicate(tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "completions": ["a", "b"], "ranks": [0, 1]},
        {"prompt": "p", "completions": ["b", "a"], "ranks": [1, 0]},
    ]
    reader = read_judgements(write(tmp_path, *rows))
    assert len(list(reader)) == 1
    assert reader.report.skipped == {"duplicate": 1}


def test_contradictions_are_kept_and_counted(tmp_path: Path) -> None:
    reader = read_judgements(write(tmp_path, pair("a", "b"), pair("b", "a"), pair("b", "a", prompt="q")))
    assert len(list(reader)) == 3
    assert reader.report.noted == {"contradiction": 1}


def test_samples_with_different_answers_are_no_duplicates(tmp_path: Path) -> None:
    path = write(tmp_path, {"prompt": "p", "answer": 1}, {"prompt": "p", "answer": 2}, {"prompt": "p", "answer": 2})
    assert [s.hidden["answer"] for s in read_prompts(path)] == [1, 2]


def test_one_empty_output_is_kept_and_counted_two_are_skipped(tmp_path: Path) -> None:
    path = write(tmp_path, pair("a", " "), pair("", "\n"), pair("a", "b"))
    reader = read_judgements(path)
    assert [j.items[1].output for j in reader] == [" ", "b"]
    assert (reader.report.noted, reader.report.skipped) == ({"empty": 1}, {"all empty": 1})
    turn = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": " "}]
    empty = read_samples(write(tmp_path, {"messages": turn}))
    assert list(empty) == []
    assert empty.report.skipped == {"all empty": 1}


def test_over_long_outputs_are_never_shortened_in_silence(tmp_path: Path) -> None:
    path = write(tmp_path, pair("abcdef", "xy"), pair("ab", "cd"))
    assert [j.items[0].output for j in read_judgements(path)] == ["abcdef", "ab"]
    cut = read_judgements(path, max_chars=3)
    items = list(cut)
    assert [(s.output, s.ended) for s in items[0].items] == [("abc", "cut"), ("xy", "done")]
    assert cut.report.noted == {"too long, cut": 1}
    skip = read_judgements(path, max_chars=3, too_long="skip")
    assert [j.items[0].output for j in skip] == ["ab"]
    assert skip.report.skipped == {"too long": 1}
    with pytest.raises(DataError, match=r"a\.jsonl:1: an output of 6 characters is longer than max_chars=3"):
        list(read_judgements(path, max_chars=3, too_long="raise"))


def test_cutting_messages_keeps_whole_ones_and_the_beginning_of_the_next(tmp_path: Path) -> None:
    turns = [
        {"role": "assistant", "content": "abc"},
        {"role": "user", "content": "de"},
        {"role": "assistant", "content": "fgh"},
    ]
    row = {"prompt": [{"role": "user", "content": "Hi"}], "completion": turns}
    (sample,) = read_samples(write(tmp_path, row), max_chars=6)
    assert sample.output == [turns[0], turns[1], {"role": "assistant", "content": "f"}]
    assert sample.ended == "cut"


def test_outputs_that_become_equal_by_cutting_are_identical(tmp_path: Path) -> None:
    reader = read_judgements(write(tmp_path, pair("abcX", "abcY")), max_chars=3)
    assert list(reader) == []
    assert reader.report.skipped == {"identical": 1}


def test_each_pass_reads_afresh_with_a_report_of_its_own(tmp_path: Path) -> None:
    reader = read_judgements(write(tmp_path, pair("a", "b"), pair("a", "b")))
    first = list(reader)
    assert list(reader) == first
    assert (reader.report.rows, reader.report.kept) == (2, 1)
    assert str(reader.report).splitlines()[0] == "2 rows read, 1 kept, 1 skipped"


def test_schema_is_known_before_the_first_item(tmp_path: Path) -> None:
    assert read(write(tmp_path, pair("a", "b"))).schema == "preference"


@pytest.mark.parametrize("option", [{"on_error": "ignore"}, {"too_long": "drop"}, {"max_chars": 0}])
def test_unknown_options_are_refused_at_once(tmp_path: Path, option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        read(write(tmp_path, pair("a", "b")), **option)


def test_a_limit_counts_samples_also_where_several_were_judged_best(tmp_path: Path) -> None:
    path = write(tmp_path, {"prompt": "p", "completions": ["a", "b", "c"], "ranks": [0, 0, 1]})
    assert [s.output for s in read_samples(path)] == ["a", "b"]
    reader = read_samples(path, limit=1)
    assert [s.output for s in reader] == ["a"]
    assert reader.report.kept == 1


@pytest.mark.data
def test_real_hh_comparisons_are_split_without_loss(shared_data: Path) -> None:
    path = shared_data / "hh_rlhf_harmless" / "harmless_base_test.jsonl.gz"
    reader = read_judgements(path)
    items = list(reader)
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        raw = [json.loads(line) for line in stream]
    assert (reader.schema, len(items), len(raw)) == ("preference", 1628, 1628)
    for item, row in zip(items, raw, strict=True):
        for sample, text in zip(item.items, (row["chosen"], row["rejected"]), strict=True):
            assert sample.prompt.endswith("\n\nAssistant:")
            assert sample.prompt + sample.output == text
    assert reader.report.noted == {"differs early": 5, "empty": 3}
    assert not reader.report.skipped
    chat = list(read_judgements(path, as_messages=True))
    assert len(chat) == 1628
    for item in chat:
        roles = [m["role"] for m in item.items[0].prompt]
        assert roles[-1] == "user"
        assert all(a != b for a, b in itertools.pairwise(roles))


@pytest.mark.data
def test_real_sharegpt_pairs_and_labelled_chats_are_read(shared_data: Path) -> None:
    folder = shared_data / "llamafactory_pref_demo"
    pairs = read_judgements(folder / "dpo_en_demo.jsonl.gz")
    items = list(pairs)
    assert (len(items), pairs.report.skipped) == (295, {"duplicate": 5})
    assert {j.items[0].prompt[-1]["role"] for j in items} == {"user"}
    thumbs = read_judgements(folder / "kto_en_demo.jsonl.gz")
    assert [sum(j.rating == (v,) for j in thumbs) for v in (1.0, 0.0)] == [150, 150]
    assert len(list(read_samples(folder / "kto_en_demo.jsonl.gz"))) == 150


@pytest.mark.data
def test_real_comparisons_in_columns_of_their_own_are_mapped(shared_data: Path) -> None:
    columns = {"prompt": "instruction", "chosen": "response1", "rejected": "response2"}
    reader = read(shared_data / "pandalm_testset" / "testset_v1.jsonl.gz", columns=columns, on_error="skip")
    items = [j for j in reader if isinstance(j, Judgement)]
    assert len(items) + sum(reader.report.skipped.values()) == 714
    assert reader.report.skipped["wrong type"] == 6  # six responses there are the JSON value true
    assert {"annotator1", "annotator2", "annotator3", "input"} <= set(items[0].items[0].hidden)
    answers = read_prompts(shared_data / "gsm8k", columns={"prompt": "question"}, limit=5)
    assert all(isinstance(s, Sample) and s.output is None for s in answers)
