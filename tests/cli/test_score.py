"""``rewardkit score``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rewardkit.cli.main import main

FUNCTION = """
import pathlib
CALLS = pathlib.Path(__file__).with_name("calls")

def size(completions, **_):
    with CALLS.open("a") as file:
        file.write("x" * len(completions))
    if any("crash" in c for c in completions):
        raise KeyboardInterrupt
    return [None if c == "broken" else float(len(c)) for c in completions]
"""
ROWS = [{"prompt": f"p{i}", "completion": "c" * (i + 1), "id": i} for i in range(6)]


@pytest.fixture
def reward(tmp_path: Path) -> str:
    (tmp_path / "reward.py").write_text(FUNCTION)
    return f"{tmp_path / 'reward.py'}:size"


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_rows_keep_their_columns_and_order_and_get_a_score(tmp_path: Path, reward: str) -> None:
    rows = [*ROWS, ROWS[0], {"prompt": "p", "completion": "broken", "id": 9}]  # a repeated row is scored again
    out = tmp_path / "out" / "scored.jsonl"
    assert (
        main(["score", write(tmp_path / "d.jsonl", rows), "--reward", reward, "--out", str(out), "--batch", "2"]) == 0
    )
    found = read(out)
    assert [{k: r[k] for k in ("prompt", "completion", "id")} for r in found] == rows
    assert [r["score"] for r in found] == [1, 2, 3, 4, 5, 6, 1, None]
    assert [r["status"] for r in found] == ["ok"] * 7 + ["missing"]
    assert not out.with_name("scored.jsonl.partial").exists()


def test_scores_that_are_there_are_not_overwritten(
    tmp_path: Path, reward: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scored.jsonl"
    args = ["score", write(tmp_path / "d.jsonl", ROWS), "--reward", reward, "--out", str(out)]
    assert main(args) == 0
    before = out.read_bytes()
    assert main([*args, "--limit", "1"]) == 2
    assert "already holds scores" in capsys.readouterr().err
    assert out.read_bytes() == before


def test_a_composed_reward_keeps_its_parts(tmp_path: Path, reward: str) -> None:
    spec = tmp_path / "sum.yaml"
    spec.write_text("sum:\n  - reward: {name: 'rewards.rules:length'}\n  - {reward: 'reward.py:size', weight: 0.5}\n")
    out = tmp_path / "scored.jsonl"
    assert main(["score", write(tmp_path / "d.jsonl", ROWS[:2]), "--reward", str(spec), "--out", str(out)]) == 0
    assert all(len(r["parts"]) == 2 for r in read(out))
    assert [r["parts"]["size"] for r in read(out)] == [1.0, 2.0]


def test_a_killed_run_leaves_no_output_and_resumes_where_it_was(
    tmp_path: Path, reward: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [*ROWS[:4], {"prompt": "p", "completion": "crash", "id": 9}]
    data, out = tmp_path / "d.jsonl", tmp_path / "scored.jsonl"
    args = ["score", str(data), "--reward", reward, "--out", str(out), "--batch", "2"]
    write(data, bad)
    assert main(args) == 130
    assert "--resume" in capsys.readouterr().err
    assert not out.exists()
    partial = tmp_path / "scored.jsonl.partial"
    assert len(read(partial)) == 4
    with partial.open("a") as file:
        file.write('{"prompt": "cut o')  # a line that the kill cut off
    (tmp_path / "calls").unlink()
    write(data, [*ROWS[:4], ROWS[4]])
    assert main([*args, "--resume"]) == 0
    assert [r["id"] for r in read(out)] == [0, 1, 2, 3, 4]
    assert (tmp_path / "calls").read_text() == "x"


def test_a_run_is_not_gone_on_with_under_another_reward(
    tmp_path: Path, reward: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.py").write_text("def other(completions, **_):\n    return [0.0 for _ in completions]\n")
    data, out = tmp_path / "d.jsonl", tmp_path / "scored.jsonl"
    args = ["score", str(data), "--out", str(out), "--batch", "2"]
    write(data, [*ROWS[:4], {"prompt": "p", "completion": "crash", "id": 9}])
    assert main([*args, "--reward", reward]) == 130
    other = f"{tmp_path / 'other.py'}:other"
    assert main([*args, "--reward", other, "--resume"]) == 2
    assert "reward was" in capsys.readouterr().err
    assert not out.exists()
    write(data, ROWS[:5])
    assert main([*args, "--reward", reward, "--resume"]) == 0
    assert main([*args, "--reward", reward, "--resume"]) == 0
    assert "is complete" in capsys.readouterr().out
    assert main([*args, "--reward", other, "--resume"]) == 2


@pytest.mark.parametrize(
    ("value", "said"), [("'?'", "6 errors, 0 missing); the first says: "), ("None", "0 errors, 6 missing)")]
)
def test_rows_of_which_none_was_scored_are_no_result(
    tmp_path: Path, value: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.py").write_text(f"def bad(completions, **_):\n    return [{value} for _ in completions]\n")
    args = ["score", write(tmp_path / "d.jsonl", ROWS), "--reward", f"{tmp_path / 'bad.py'}:bad"]
    assert main([*args, "--out", str(tmp_path / "o.jsonl")]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("o.jsonl*"))


@pytest.mark.parametrize(("column", "value", "rating"), [("label", False, 0.0), ("score", 3.5, 3.5)])
def test_rows_with_a_grade_of_their_own_are_scored(
    tmp_path: Path, reward: str, column: str, value: object, rating: float
) -> None:
    data, out = write(tmp_path / "d.jsonl", [{**r, column: value} for r in ROWS]), tmp_path / "o.jsonl"
    assert main(["score", data, "--reward", reward, "--out", str(out)]) == 0
    assert [(r["score"], r["rating"]) for r in read(out)] == [(i + 1.0, rating) for i in range(6)]


def test_comparisons_are_pointed_to_eval(tmp_path: Path, reward: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / "d.jsonl", [{"prompt": "p", "chosen": "a", "rejected": "b"}])
    assert main(["score", data, "--reward", reward, "--out", str(tmp_path / "o.jsonl")]) == 2
    assert "eval pairwise" in capsys.readouterr().err
    assert main(["score", data, "--reward", reward, "--out", str(tmp_path / "o.csv")]) == 2
    assert ".jsonl" in capsys.readouterr().err
