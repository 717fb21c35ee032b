"""Round trips without loss, and files that are whole or untouched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from rewardkit.data import DataError, read, read_judgements, write_judgements, write_samples
from rewardkit.types import Judgement, Sample

CHAT = [{"role": "user", "content": "Hi"}]


def said(text: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": text}]


def pair(prompt: Any, a: Any, b: Any, hidden: dict[str, Any] | None = None, **about: Any) -> Judgement:
    return Judgement(tuple(Sample(prompt, o, hidden=hidden or {}) for o in (a, b)), **{"rank": (0, 1), **about})


FULL = {
    "strength": 1.5,
    "aspect": "helpful",
    "annotator": "anna",
    "at": 12.5,
    "note": "näh\u2028",
    "weight": 0.25,
    "spans": ((1, 0, 2, "wrong"),),
}

SETS: list[tuple[str, list[Judgement]]] = [
    ("preference", [pair("p", "a", "b"), pair("q\n", " ", "d", {"id": 3, "tests": ["x", {"y": None}]}, **FULL)]),
    ("preference", [pair(CHAT, said("a"), said("b"))]),
    ("ranked", [pair("p", "a", "b", rank=(1, 0)), pair("p", "a", "c", rank=(0, 0))]),
    ("ranked", [pair("p", "a", "b", rank=None, p=(0.25, 0.75), **FULL)]),
    ("ranked", [pair("p", "a", "b", rank=None, rating=(0.1, -3.0)), pair("p", "a", "c")]),
    (
        "label",
        [
            Judgement((Sample("p", "a"),), rating=(1.0,)),
            Judgement((Sample("q", "b", source="Q", ended="cut"),), rating=(0.0,)),
        ],
    ),
    ("rating", [Judgement((Sample("p", "a"),), rating=(2.5,), annotator="b")]),
    ("items", [Judgement((Sample("p", "a"), Sample("q", "b", hidden={"k": 1}, ended="failed")), rank=(0, 1))]),
    (
        "items",
        [Judgement((Sample("p", "a"),), note="too short"), pair("p", "a", "b", rank=None, spans=((0, 0, 1, "x"),))],
    ),
    ("items", [pair("p", None, "b"), pair("p", "a", "b", rank=None, p=(0.5, 0.5))]),
]


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "parquet"])
@pytest.mark.parametrize(("schema", "items"), SETS)
def test_judgements_are_read_back_as_they_were_written(
    tmp_path: Path, suffix: str, schema: str, items: list[Judgement]
) -> None:
    path = tmp_path / f"a.{suffix}"
    assert write_judgements(path, items) == schema
    reader = read(path)
    assert list(reader) == items
    assert reader.schema == schema
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("schema", "items"),
    [
        ("completion", [Sample("p", "a"), Sample("q", "b", source="Q", hidden={"gold": 4}, ended="cut")]),
        ("completion", [Sample(CHAT, said("a"))]),
        ("prompt", [Sample("p", hidden={"gold": [1, 2]}), Sample("q")]),
        ("text", [Sample("", "a document")]),
    ],
)
def test_samples_are_read_back_as_they_were_written(
    tmp_path: Path, suffix: str, schema: str, items: list[Sample]
) -> None:
    path = tmp_path / f"a.{suffix}"
    assert write_samples(path, items) == schema
    assert list(read(path)) == items


def test_others_read_the_standard_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_judgements(path, [pair(CHAT, said("a"), said("b"), strength=2.0)])
    table = datasets.Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "cache"))
    assert table.column_names == ["prompt", "chosen", "rejected", "strength"]
    assert table[0]["chosen"] == said("a")


def test_no_judgements_make_an_empty_file(tmp_path: Path) -> None:
    for name in ("a.jsonl", "a.parquet"):
        write_judgements(tmp_path / name, [])
        assert list(read(tmp_path / name)) == []


def test_a_named_schema_streams_and_names_what_does_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"

    def stream() -> Iterator[Judgement]:
        yield pair("p", "a", "b")
        yield pair("p", "a", "b", rank=(1, 0))

    with pytest.raises(DataError, match=r"a\.jsonl:2: this item would not be read back as it is"):
        write_judgements(path, stream(), schema="preference")
    with pytest.raises(ValueError, match="no schema 'completion'"):
        write_judgements(path, stream(), schema="completion")
    assert write_judgements(path, stream(), schema="ranked") == "ranked"
    assert len(list(read_judgements(path, keep_duplicates=True))) == 2


@pytest.mark.parametrize("hidden", [{"x": torch.zeros(2)}, {"x": float("nan")}, {"x": (1, 2)}, {1: 2}])
def test_what_json_does_not_hold_is_refused_with_its_number(tmp_path: Path, hidden: dict[Any, Any]) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl:1: "):
        write_judgements(tmp_path / "a.jsonl", [pair("p", "a", "b", hidden)])


def test_text_and_messages_do_not_share_a_parquet_column(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with pytest.raises(DataError, match=r"write \.jsonl instead"):
        write_judgements(path, [pair("p", "a", "b"), pair(CHAT, said("a"), said("b"))])
    assert not path.exists()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_judgements(path, [pair("p", "a", "b")])
    before = path.read_bytes()

    def broken() -> Iterator[Judgement]:
        yield pair("q", "a", "b")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        write_judgements(path, broken(), schema="preference")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_unknown_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unknown kind of file \(write \.jsonl"):
        write_samples(tmp_path / "a.txt", [Sample("p")])


@pytest.mark.data
def test_real_comparisons_survive_the_round_trip(shared_data: Path, tmp_path: Path) -> None:
    items = list(read_judgements(shared_data / "llamafactory_pref_demo" / "dpo_en_demo.jsonl.gz"))
    assert write_judgements(tmp_path / "a.parquet", items) == "preference"
    assert list(read_judgements(tmp_path / "a.parquet")) == items
    first = json.dumps(items[0].items[0].prompt)
    write_judgements(tmp_path / "a.jsonl.gz", items)
    assert json.dumps(next(iter(read_judgements(tmp_path / "a.jsonl.gz"))).items[0].prompt) == first
