"""``rewardkit align``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rewardkit.cli.main import main
from rewardkit.data import read_judgements, split


def pairs(path: Path, n: int = 20) -> str:
    rows = [{"prompt": f"{i}: ", "chosen": "yes please", "rejected": "go away"} for i in range(n)]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


SMALL = ["--vocab-size", "300", "--max-length", "48", "--batch", "8"]


@pytest.fixture
def data(tmp_path: Path) -> str:
    return pairs(tmp_path / "pairs.jsonl")


@pytest.fixture
def trained(data: str, tmp_path: Path) -> str:
    out = str(tmp_path / "sft")
    assert (
        main(
            ["align", data, "--policy", "scratch:llama-1m", "--objective", "sft", "--out", out, "--epochs", "1", *SMALL]
        )
        == 0
    )
    return out


def test_sft_then_dpo_then_grpo_on_one_split(
    data: str, trained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "dpo"
    assert main(["align", data, "--policy", trained, "--objective", "dpo", "--out", str(out), *SMALL]) == 0
    found = json.loads((out / "summary.json").read_text())
    assert {"accuracy", "accuracy_low", "accuracy_high", "length_only", "train_accuracy"} <= set(found)
    assert found["n"] == found["held_out"]
    (tmp_path / "reward.py").write_text(
        "def short(completions, **_):\n    return [-float(len(c)) for c in completions]\n"
    )
    reward = ["--reward", f"{tmp_path / 'reward.py'}:short", "--steps", "2", "--samples", "2", "--max-new-tokens", "6"]
    args = ["align", data, "--policy", trained, "--objective", "grpo", "--out", str(tmp_path / "grpo"), *reward, *SMALL]
    assert main(args) == 0
    assert "no measure of quality" in capsys.readouterr().out
    online = json.loads((tmp_path / "grpo" / "summary.json").read_text())
    assert online["steps"] == 2
    assert (tmp_path / "grpo" / "model.safetensors").is_file()


def test_another_split_than_the_policy_was_trained_on_is_refused(
    data: str, trained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["align", data, "--policy", trained, "--objective", "dpo", "--out", str(tmp_path / "dpo"), "--seed", "1"]
    assert main(args) == 2
    assert "has seen prompts" in capsys.readouterr().err
    assert not (tmp_path / "dpo").exists()


@pytest.mark.parametrize(
    ("objective", "more", "message"),
    [
        ("grpo", [], "needs --reward"),
        ("dpo", ["--reward", "x.py:f"], "takes no --reward"),
        ("dpo", [], "starts from a trained policy"),
    ],
)
def test_what_does_not_fit_together_is_said_first(
    objective: str, more: list[str], message: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [
        "align",
        data,
        "--policy",
        "scratch:llama-1m",
        "--objective",
        objective,
        "--out",
        str(tmp_path / "o"),
        *more,
    ]
    assert main(args) == 2
    assert message in capsys.readouterr().err


@pytest.mark.data
@pytest.mark.slow
def test_real_dialogues_train_a_tokenizer_and_a_model_that_dpo_goes_on_with(shared_data: Path, tmp_path: Path) -> None:
    data, sft, dpo = str(shared_data / "hh_rlhf_harmless"), tmp_path / "sft", tmp_path / "dpo"
    common = ["--limit", "24", "--max-length", "48", "--seed", "2"]
    first = [
        "--policy",
        "scratch:llama-1m",
        "--objective",
        "sft",
        "--out",
        str(sft),
        "--vocab-size",
        "512",
        "--epochs",
        "1",
    ]
    assert main(["align", data, *first, *common]) == 0
    assert main(["align", data, "--policy", str(sft), "--objective", "dpo", "--out", str(dpo), *common]) == 0
    found = json.loads((dpo / "summary.json").read_text())
    held_out = split(list(read_judgements(data, limit=24)), {"held_out": 0.2}, 2)["held_out"]
    assert found["n"] == len(held_out)
    assert 0 <= found["accuracy"] <= 1
    assert found["train_accuracy_n"] == 24 - len(held_out)
