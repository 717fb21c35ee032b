"""``rewardkit eval``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rewardkit.cli.main import main
from rewardkit.rewards.load import load_reward
from rewardkit.training.items import prompt_digests, write_seen
from rewardkit.types import Sample

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


def test_a_reward_on_prompts_that_it_was_trained_on_is_said(
    tmp_path: Path, reward: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"prompt": f"p{i}", "chosen": "aa", "rejected": "b"} for i in range(4)]
    data, out = tmp_path / "pairs.jsonl", tmp_path / "out.json"
    data.write_text("\n".join(map(json.dumps, rows)))
    write_seen(tmp_path, prompt_digests([Sample("p1"), Sample("p2"), Sample("elsewhere")]))
    monkeypatch.setattr("rewardkit.rewards.load.load_reward", lambda spec: load_reward(reward))
    assert main(["eval", "pairwise", "--reward", str(tmp_path), "--data", str(data), "--json", str(out)]) == 0
    assert json.loads(out.read_text())["prompts_trained_on"] == 2
    assert "trained on 2 of these prompts" in capsys.readouterr().out


def test_pairwise_refuses_a_file_without_comparisons(
    tmp_path: Path, reward: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "rows.jsonl"
    data.write_text(json.dumps({"prompt": "p", "completion": "c"}))
    assert main(["eval", "pairwise", "--reward", reward, "--data", str(data)]) == 2
    assert "judge nothing" in capsys.readouterr().err


BROKEN = """
from rewardkit.rewards.base import RewardBase
from rewardkit.types import ERROR, Scores
import torch

class Broken(RewardBase):
    name = "broken"

    def __call__(self, rollout, ctx=None):
        n = len(rollout)
        return Scores(torch.zeros(n), status=torch.full((n,), ERROR), why=["the judge is away"] * n)

broken = Broken()
"""


@pytest.mark.parametrize(
    ("benchmark", "name", "row"),
    [
        ("pairwise", "pairs.jsonl", {"prompt": "p", "chosen": "a", "rejected": "b"}),
        ("llmbar", "natural.jsonl", {"input": "p", "output_1": "a", "output_2": "b", "label": 1}),
        ("rm_bench", "chat.jsonl", {"prompt": "p", "chosen": ["a"] * 3, "rejected": ["b"] * 3}),
    ],
)
def test_a_reward_that_scores_nothing_has_no_result(
    benchmark: str, name: str, row: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    data, out = tmp_path / "data" / name, tmp_path / "out.json"
    data.parent.mkdir()
    data.write_text(json.dumps(row))
    path = data if benchmark == "pairwise" else data.parent
    args = ["eval", benchmark, "--reward", f"{tmp_path / 'broken.py'}:broken", "--data", str(path), "--json", str(out)]
    assert main(args) == 2
    assert "none of 1 rows could be scored; the first: the judge is away" in capsys.readouterr().err
    assert not out.exists()


def test_a_subset_that_was_not_scored_is_null_beside_one_that_was(tmp_path: Path, reward: str) -> None:
    for name, first in (("natural", "aa"), ("casestudy_normal", "broken")):
        row = {"input": "p", "output_1": first, "output_2": "b", "label": 1}
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row))
    out = tmp_path / "out.json"
    assert main(["eval", "llmbar", "--reward", reward, "--data", str(tmp_path), "--json", str(out)]) == 0
    found = json.loads(out.read_text(), parse_constant=pytest.fail)["subsets"]
    assert found["natural"]["accuracy"] == 1.0
    assert (found["casestudy_normal"]["accuracy"], found["casestudy_normal"]["unscored"]) == (None, 1)


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
