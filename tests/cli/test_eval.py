"""``rewardkit eval``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rewardkit.cli.main import main

FUNCTION = """
def longer(completions, **_):
    return [None if "broken" in text(c) else float(len(text(c))) for c in completions]

def text(completion):
    return completion if isinstance(completion, str) else completion[-1]["content"]
"""


@pytest.fixture
def reward(tmp_path: Path) -> str:
    (tmp_path / "reward.py").write_text(FUNCTION)
    return f"{tmp_path / 'reward.py'}:longer"


def test_pairwise_writes_every_field(tmp_path: Path, reward: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [("aa", "b"), ("a", "bb"), ("a", "b"), ("broken", "b")]
    data, out = tmp_path / "pairs.jsonl", tmp_path / "deep" / "out.json"
    data.write_text("\n".join(json.dumps({"prompt": "p", "chosen": c, "rejected": r}) for c, r in rows))
    assert main(["eval", "pairwise", "--reward", reward, "--data", str(data), "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert (found["accuracy"], found["n"], found["ties"], found["unscored"]) == (0.5, 3, 1, 1)
    assert found["accuracy_low"] < 0.5 < found["accuracy_high"]
    assert found["length_bias"] == pytest.approx(1)
    assert "1 unscored" in capsys.readouterr().out


def test_pairwise_refuses_a_file_without_comparisons(
    tmp_path: Path, reward: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps({"prompt": "p", "completion": "c"}))
    assert main(["eval", "pairwise", "--reward", reward, "--data", str(data)]) == 2
    assert "judge nothing" in capsys.readouterr().err


@pytest.mark.data
@pytest.mark.parametrize(
    ("benchmark", "subset", "absent"), [("llmbar", "natural", "adversarial_manual"), ("rm_bench", "chat", "math")]
)
def test_benchmarks_report_what_is_present_and_no_overall_score(
    benchmark: str, subset: str, absent: str, shared_data: Path, tmp_path: Path, reward: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    out = tmp_path / "out.json"
    args = ["eval", benchmark, "--reward", reward, "--data", str(shared_data / benchmark), "--json", str(out)]
    assert main(args) == 0
    found = json.loads(out.read_text())
    assert subset in found["subsets"]
    assert absent in found["absent"]
    assert set(found) == {"benchmark", "reward", "data", "subsets", "absent"}
    said = capsys.readouterr().out
    assert "no overall score" in said
    assert absent in said
