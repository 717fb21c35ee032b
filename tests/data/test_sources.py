"""Files of every kind, whole and broken."""

from __future__ import annotations

import gzip
import itertools
import json
import tracemalloc
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rewardkit.data import DataError, read, read_judgements
from rewardkit.data.sources import open_rows
from rewardkit.types import Judgement

PAIRS = [{"prompt": f"question {i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(5)]


def lines(rows: list[dict[str, Any]], end: str = "\n") -> bytes:
    return "".join(json.dumps(r, ensure_ascii=False) + end for r in rows).encode()


def chosen(path: Path | str, **options: Any) -> list[Any]:
    return [j.items[0].output for j in read_judgements(path, **options)]


GOOD = [r["chosen"] for r in PAIRS]


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.jsonl.gz", "a.json", "array.json", "array.json.gz", "a.parquet", "a.csv"]
)
def test_every_format_gives_the_same_judgements(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(PAIRS), path)
    elif name.endswith(".csv"):
        path.write_text(
            "prompt,chosen,rejected\n" + "".join(f"{r['prompt']},{r['chosen']},{r['rejected']}\n" for r in PAIRS)
        )
    else:
        data = json.dumps(PAIRS, indent=1).encode() if name.startswith("array") else lines(PAIRS)
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    items = list(read_judgements(path))
    assert [(j.items[0].prompt, j.items[0].output, j.items[1].output, j.rank) for j in items] == [
        (r["prompt"], r["chosen"], r["rejected"], (0, 1)) for r in PAIRS
    ]


def test_byte_order_mark_crlf_and_blank_lines_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + lines(PAIRS[:2], "\r\n") + b"\r\n  \n" + lines(PAIRS[2:], "\r\n"))
    assert chosen(path) == GOOD


def test_last_line_without_newline_is_read_and_line_separators_inside_text_end_no_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    row = {"prompt": "p", "chosen": "one\u2028two\x85three", "rejected": "r"}
    path.write_bytes(lines([row]).rstrip(b"\n"))
    assert chosen(path) == ["one\u2028two\x85three"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.jsonl.gz"])
def test_empty_file_has_no_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"") if name.endswith(".gz") else b"")
    reader = read(path)
    assert list(reader) == []
    assert reader.schema is None


def test_invalid_utf8_names_line_and_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    first, rest = lines(PAIRS[:1]), lines(PAIRS[2:])
    bad = lines(PAIRS[1:2]).replace(b"good", b"g\xff\xfed")
    path.write_bytes(first + bad + rest)
    at = bad.index(b"\xff")
    with pytest.raises(
        DataError, match=rf"a\.jsonl:2: .*byte {at} of the line, byte {len(first) + at} of the file"
    ) as error:
        list(read(path))
    assert (error.value.line, error.value.path) == (2, str(path))
    reader = read_judgements(path, on_error="skip")
    assert [j.items[0].output for j in reader] == [GOOD[0], *GOOD[2:]]
    assert reader.report.skipped == {"invalid UTF-8": 1}


@pytest.mark.parametrize(
    ("line", "said"), [(b"{not json}\n", "wrong JSON"), (b"[1, 2]\n", "a row is a JSON object, not list")]
)
def test_wrong_json_names_the_line(tmp_path: Path, line: bytes, said: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(PAIRS[:2]) + line + lines(PAIRS[2:]))
    with pytest.raises(DataError, match=rf"a\.jsonl:3: {said}"):
        list(read(path))
    assert chosen(path, on_error="skip") == GOOD


def test_cut_off_last_line_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(PAIRS)[:-20])
    with pytest.raises(DataError, match=r":5: wrong JSON.*may be cut off here"):
        list(read(path))


@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_truncated_gzip_hands_out_complete_rows_then_names_the_last_good_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}.gz"
    rows = [
        {**r, "noise": "".join(chr(97 + (i * 7919 * (k + 3)) % 26) for k in range(400))}
        for i, r in enumerate(PAIRS * 40)
    ]
    rows = [{**r, "prompt": f"{i} {r['prompt']}"} for i, r in enumerate(rows)]
    data = lines(rows) if kind == "jsonl" else json.dumps(rows, indent=0).encode()
    packed = gzip.compress(data)
    path.write_bytes(packed[: len(packed) * 2 // 3])
    got: list[Any] = []
    with pytest.raises(DataError, match="the last good line is") as error:
        got.extend(read(path))  # extend keeps what came before the error
    assert 0 < len(got) < len(rows)
    assert [j.items[0].prompt for j in got] == [r["prompt"] for r in rows[: len(got)]]
    if kind == "jsonl":
        assert error.value.line == len(got) + 1
        assert f"last good line is {len(got)}" in str(error.value)
    reader = read(path, on_error="skip")
    assert len(list(reader)) == len(got)
    assert reader.report.skipped == {"truncated file": 1}


def test_gzip_is_recognised_by_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "misnamed.jsonl"
    path.write_bytes(gzip.compress(lines(PAIRS)))
    assert chosen(path) == GOOD


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[{"prompt": "a"}, 3]', "a row is a JSON object"),
        ('[{"prompt": "a"}, {"prom', "cut off"),
        ('[{"prompt": "a"},', "cut off"),
    ],
)
def test_broken_json_array_gives_what_came_before(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    rows = list(open_rows(path))
    assert rows[0].values == {"prompt": "a"}
    assert said in str(rows[1].error)


def test_json_array_error_counts_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"prompt": "a"}, {"prompt": None}], indent=1))
    with pytest.raises(DataError, match=r"a\.json:5: field 'prompt': null"):
        list(read(path))


def test_csv_with_a_short_line_names_it(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('prompt,chosen,rejected\n"a, b","x\ny",z\nonly,two\n')
    reader = read_judgements(path, on_error="skip")
    assert [j.items[0].output for j in reader] == ["x\ny"]
    with pytest.raises(DataError, match=r"a\.csv:4: this line has not the 3 fields"):
        list(read(path))


def test_broken_parquet_is_an_error_with_the_path(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 nothing here")
    with pytest.raises(DataError, match=r"a\.parquet:1: not a readable Parquet file"):
        list(read(path))


def test_invalid_utf8_in_parquet_costs_one_row(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    raw = [b"one", b"t\xffo", b"three"]
    column = pa.StringArray.from_buffers(
        3, pa.py_buffer(bytes([0, 0, 0, 0, 3, 0, 0, 0, 6, 0, 0, 0, 11, 0, 0, 0])), pa.py_buffer(b"".join(raw))
    )
    pq.write_table(pa.table({"text": column}), path)
    reader = read(path, on_error="skip")
    assert [s.output for s in reader] == ["one", "three"]  # type: ignore[union-attr]
    assert reader.report.skipped == {"invalid UTF-8": 1}
    with pytest.raises(DataError, match=r"a\.parquet:2: invalid UTF-8"):
        list(read(path))


def test_missing_file_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        read(tmp_path / "nothing.jsonl")
    (tmp_path / "a.xlsx").write_text("x")
    with pytest.raises(DataError, match="unknown kind of file"):
        read(tmp_path / "a.xlsx")


def test_saved_data_set_is_read_from_its_folder(tmp_path: Path) -> None:
    datasets.Dataset.from_list(PAIRS).save_to_disk(str(tmp_path / "one"))
    assert chosen(tmp_path / "one") == GOOD
    both = datasets.DatasetDict(
        {"train": datasets.Dataset.from_list(PAIRS[:3]), "test": datasets.Dataset.from_list(PAIRS[3:])}
    )
    both.save_to_disk(str(tmp_path / "two"))
    assert chosen(tmp_path / "two") == GOOD[:3]
    assert chosen(f"{tmp_path / 'two'}@test") == GOOD[3:]
    with pytest.raises(DataError, match=r"there is no split 'dev'.*'train', 'test'"):
        chosen(tmp_path / "two", split="dev")


def test_folder_of_data_files_is_read_by_split(tmp_path: Path) -> None:
    (tmp_path / "harmless").mkdir()
    (tmp_path / "harmless" / "train-00000.jsonl.gz").write_bytes(gzip.compress(lines(PAIRS[:2])))
    (tmp_path / "harmless" / "train-00001.jsonl").write_bytes(lines(PAIRS[2:3]))
    (tmp_path / "harmless" / "test.jsonl").write_bytes(lines(PAIRS[3:]))
    (tmp_path / "README.md").write_text("no data")
    assert chosen(tmp_path) == GOOD[:3]
    assert chosen(tmp_path, split="test") == GOOD[3:]
    (tmp_path / "harmless" / "test.jsonl").write_bytes(lines(PAIRS[3:]) + b"oops\n")
    with pytest.raises(DataError, match=r"test\.jsonl:3: "):
        chosen(tmp_path, split="test")


def test_folder_without_data_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data files in this folder"):
        read(tmp_path)


def test_hub_name_is_streamed_with_config_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []

    def load_dataset(name: str, config: str | None, *, split: str | None, streaming: bool) -> Any:
        calls.append((name, config, split, streaming))
        rows = datasets.IterableDataset.from_generator(lambda: iter(PAIRS))
        return rows if split else datasets.IterableDatasetDict({"train": rows})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert chosen("org/name:harmless-base@test") == GOOD
    assert chosen("org/name") == GOOD
    assert calls == [("org/name", "harmless-base", "test", True), ("org/name", None, None, True)]


def test_hub_that_does_not_answer_is_an_error_with_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*args: Any, **options: Any) -> Any:
        raise ConnectionError("offline")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match=r"org/name: not a local path, and the hub does not give it: offline"):
        list(read("org/name"))


def _large(path: Path, rows: int) -> None:
    text = "x" * 10_000
    made = ({"prompt": f"p{i}", "chosen": f"{i} {text}", "rejected": f"{text} {i}"} for i in range(rows))
    if path.suffix == ".parquet":
        with pq.ParquetWriter(path, pa.schema([(c, pa.string()) for c in PAIRS[0]])) as writer:
            while batch := list(itertools.islice(made, 100)):
                writer.write_table(pa.Table.from_pylist(batch, schema=writer.schema))
        return
    array = path.suffix == ".json"
    with path.open("w") as stream:
        for number, row in enumerate(made):
            stream.write(("[" if number == 0 else ",\n") * array + json.dumps(row) + "\n" * (not array))
        stream.write("]" * array)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet"])
def test_file_larger_than_the_memory_it_takes_is_streamed(tmp_path: Path, name: str) -> None:
    path, rows = tmp_path / name, 800
    _large(path, rows)
    whole = rows * 20_000
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    count, most, arrow = 0, 0, 0
    for item in read_judgements(path):
        count += isinstance(item, Judgement)
        arrow = max(arrow, pa.total_allocated_bytes() - before)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == rows
    assert most < whole / 4
    assert arrow < whole / 2


def test_reading_stops_at_the_limit_without_reading_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(PAIRS[:3]) + b"broken\n")
    assert chosen(path, limit=3) == GOOD[:3]


def test_a_folder_of_splits_is_read_by_the_nearest_name(tmp_path: Path) -> None:
    for name, row in (
        ("train/part-0.jsonl", PAIRS[0]),
        ("test/part-0.jsonl", PAIRS[1]),
        ("validation/2024/part-0.jsonl", PAIRS[2]),
        ("train/held-out-test.jsonl", PAIRS[3]),
    ):
        path = tmp_path / "d" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lines([row]))
    assert chosen(tmp_path / "d") == ["good 0"]
    assert chosen(f"{tmp_path / 'd'}@test") == ["good 1", "good 3"]
    assert chosen(f"{tmp_path / 'd'}@dev") == ["good 2"]


def test_an_array_nested_beyond_measure_is_an_error_of_its_row(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(PAIRS[:1])[:-1] + ', {"x": ' + "[" * 100_000 + "]" * 100_000 + "}]")
    reader = read_judgements(path, on_error="skip")
    assert [j.items[0].output for j in reader] == ["good 0"]
    assert reader.report.skipped == {"wrong JSON": 1}


def test_a_csv_field_longer_than_the_modules_limit_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"prompt,chosen,rejected\np,{'a' * 200_000},b\n")
    assert [len(c) for c in chosen(path)] == [200_000]
