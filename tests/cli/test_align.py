"""``rewardkit align``."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from rewardkit.cli.main import main
from rewardkit.data import read_judgements, split


def pairs(path: Path, n: int = 20) -> str:
    rows = [{"prompt": f"{i}: ", "chosen": "yes please", "rejected": "go away"} for i in range(n)]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return str(path)


REWARDS = """
def short(completions, **_):
    return [-float(len(c)) for c in completions]

def broken(completions, **_):
    return ["?" for c in completions]

CALLS = []

def second(completions, **_):
    CALLS.append(1)  # before the first turn, after turns 1, 2 and 3, then of what is published
    return [[0.0, 1.0, 3.0, 2.0, 2.0][len(CALLS) - 1]] * len(completions)
"""


def reward(folder: Path, name: str = "short") -> str:
    (folder / "reward.py").write_text(REWARDS)
    return f"{folder / 'reward.py'}:{name}"


ONE_TURN = ["--steps", "1", "--samples", "2", "--max-new-tokens", "6"]
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
    turns = ["--reward", reward(tmp_path), "--steps", "2", "--samples", "2", "--max-new-tokens", "6"]
    args = ["align", data, "--policy", trained, "--objective", "grpo", "--out", str(tmp_path / "grpo"), *turns, *SMALL]
    assert main(args) == 0
    assert "no measure of quality" in capsys.readouterr().out
    online = json.loads((tmp_path / "grpo" / "summary.json").read_text())
    assert online["steps"] == 2
    assert {"model.safetensors", "rollouts.jsonl", "rollouts.html"} <= {p.name for p in (tmp_path / "grpo").iterdir()}
    assert main([*args, "--resume"]) == 0
    assert "is complete" in capsys.readouterr().out
    assert main([*args, "--resume", "--kl", "0.5"]) == 2
    assert "kl was None and is 0.5" in capsys.readouterr().err


def test_the_references_log_probs_lie_beside_the_data_unless_they_are_not_wanted(
    data: str, trained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def args(name: str) -> list[str]:
        return ["align", data, "--policy", trained, "--objective", "dpo", "--out", str(tmp_path / name), *SMALL]

    kept = Path(f"{data}.reference.sqlite")
    assert main([*args("off"), "--no-reference-store"]) == 0
    assert "log-probs of the reference" not in capsys.readouterr().out
    assert not kept.exists()
    assert main(args("first")) == 0
    assert f"{kept}: log-probs of the reference: 34 rows found, 40 computed" in capsys.readouterr().out
    assert main([*args("second"), "--beta", "0.3"]) == 0
    assert "74 rows found, 0 computed" in capsys.readouterr().out
    kept.write_text("something else " * 100)
    assert main(args("third")) == 2
    assert f"{kept}: " in capsys.readouterr().err


def test_a_turn_ahead_is_asked_for_where_the_method_allows_it(
    data: str, trained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["align", data, "--policy", trained, "--reward", reward(tmp_path), "--steps", "3", "--samples", "2"]
    args += ["--max-new-tokens", "4", "--ahead", "1", *SMALL]
    assert main([*args, "--objective", "grpo", "--out", str(tmp_path / "grpo")]) == 0
    assert json.loads((tmp_path / "grpo" / "summary.json").read_text())["options"]["ahead"] == 1
    assert main([*args, "--objective", "rloo", "--out", str(tmp_path / "rloo")]) == 2
    assert "reinforce has no importance ratio" in capsys.readouterr().err


def test_another_split_than_the_policy_was_trained_on_is_refused(
    data: str, trained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = pairs(tmp_path / "the_same_rows.jsonl")
    for name in (data, f"{tmp_path}/./pairs.jsonl", copied):
        for objective in ("dpo", "grpo"):
            args = ["align", name, "--policy", trained, "--objective", objective, "--out", str(tmp_path / "o")]
            args += ["--reward", reward(tmp_path)] if objective == "grpo" else []
            assert main([*args, "--seed", "1"]) == 2
            assert "has seen prompts" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_a_finished_run_of_other_options_is_not_called_complete(
    data: str, trained: str, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["align", data, "--policy", "scratch:llama-1m", "--objective", "sft", "--out", trained, "--epochs", "1"]
    assert main([*args, *SMALL, "--resume"]) == 0
    assert "is complete" in capsys.readouterr().out
    for more, said in [
        (["--lr", "0.5", "--seed", "7"], "lr was None and is 0.5, "),
        (["--lora", "4"], "lora was None and is 4"),
        (["--vocab-size", "301"], "vocab_size was 300 and is 301"),
    ]:
        assert main([*args, *SMALL, *more, "--resume"]) == 2
        assert said in capsys.readouterr().err


def test_a_folder_may_be_called_scratch_and_a_rate_may_be_0(
    data: str, trained: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "scratch/sft")
    args = ["align", data, "--policy", "scratch/sft", "--objective", "grpo", "--out", "grpo", "--lr", "0", *SMALL]
    assert main([*args, "--reward", reward(tmp_path), *ONE_TURN]) == 0
    assert json.loads(Path("grpo/summary.json").read_text())["lr"] == 0
    assert Path("grpo/model.safetensors").read_bytes() == Path("scratch/sft/model.safetensors").read_bytes()


def test_what_fails_before_training_is_one_line_and_leaves_the_folder_free(
    data: str, trained: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    args = ["align", data, "--policy", trained, "--objective", "grpo", "--out", str(tmp_path / "o"), *ONE_TURN, *SMALL]
    assert main([*args, "--reward", reward(tmp_path), "--track", "wandb"]) == 2
    assert "pip install 'rewardkit[wandb]'" in capsys.readouterr().err
    assert main([*args, "--reward", reward(tmp_path, "broken")]) == 2
    assert "the reward failed on 16 of 16 rows" in capsys.readouterr().err
    assert main([*args, "--reward", reward(tmp_path)]) == 0


def test_the_weights_that_the_metric_likes_best_are_published(
    data: str, trained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["align", data, "--policy", trained, "--objective", "grpo", "--out", str(tmp_path / "o"), *SMALL]
    args += ["--reward", reward(tmp_path), "--metric", reward(tmp_path, "second"), "--lr", "1e-2"]
    args += ["--steps", "3", "--samples", "2", "--max-new-tokens", "6", "--evaluate-every", "1"]
    assert main(args) == 0
    found = json.loads((tmp_path / "o/summary.json").read_text())
    assert found["published"] == 2
    assert found["held_out_metric_after"] == 2.0
    assert "at turn 2, the best" in capsys.readouterr().out
    assert main([*args[:8], "--objective", "dpo", "--metric", "x.py:f"]) == 2
    assert "takes no --metric" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("objective", "more", "message"),
    [
        ("grpo", [], "needs --reward"),
        ("dpo", ["--reward", "x.py:f"], "takes no --reward"),
        ("dpo", [], "starts from a trained policy"),
        ("dpo", ["--samples", "4"], "takes no --samples"),
        ("sft", ["--beta", "0.3"], "takes no --beta"),
        ("grpo", ["--reward", "x.py:f", "--beta", "0.3"], "takes no --beta; the coefficient of its KL is --kl"),
        ("grpo", ["--reward", "x.py:f", "--epochs", "7"], "takes no --epochs"),
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
