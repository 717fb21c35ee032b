"""``rewardkit fit``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rewardkit.cli.fit import MINILM, backbone
from rewardkit.cli.main import main


def test_minilm_is_found_in_its_package_and_other_names_are_left_alone() -> None:
    assert (Path(backbone("minilm")) / "model.safetensors").is_file()
    assert backbone(MINILM[1]) == backbone("minilm")
    assert backbone("org/model") == "org/model"


def test_a_bad_row_stops_before_anything_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text(
        '{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": "a", "chosen": null, "rejected": "c"}\n'
    )
    assert main(["fit", str(data), "--model", "minilm", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "pairs.jsonl:2" in said
    assert "chosen" in said
    assert not (tmp_path / "out").exists()


def test_a_finished_run_of_other_options_is_not_called_complete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "pairs.jsonl", tmp_path / "rm"
    rows = [{"prompt": f"{i}:", "chosen": "yes", "rejected": "no"} for i in range(8)]
    data.write_text("".join(json.dumps(r) + "\n" for r in rows))
    args = ["fit", str(data), "--model", "minilm", "--out", str(out), "--max-length", "16", "--epochs", "0.1"]
    assert main(args) == 0
    assert main([*args, "--resume"]) == 0
    assert "is complete" in capsys.readouterr().out
    for more in (["--lr", "0.5"], ["--dtype", "bfloat16"], ["--max-length", "17"]):
        assert main([*args, *more, "--resume"]) == 2
        assert f"{more[0][2:].replace('-', '_')} was" in capsys.readouterr().err


@pytest.mark.data
@pytest.mark.slow
def test_real_comparisons_go_through_fit_and_eval(
    shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out, found = shared_data / "hh_rlhf_harmless", tmp_path / "rm", tmp_path / "eval.json"
    options = ["--limit", "24", "--max-length", "32", "--batch", "12", "--seed", "1"]
    assert main(["fit", str(data), "--model", "minilm", "--out", str(out), *options]) == 0
    summary = json.loads((out / "fit.json").read_text())
    assert summary["train"] + summary["held_out"] == 24
    assert summary["n"] == summary["held_out"]  # never the training pairs
    assert {
        "accuracy",
        "accuracy_low",
        "accuracy_high",
        "ece",
        "length_bias",
        "length_only",
        "similar_length_accuracy",
    } <= (set(summary))
    assert summary["truncated"] > 0.5
    assert "lost their beginning" in capsys.readouterr().out
    args = ["eval", "pairwise", "--reward", str(out), "--data", str(data), "--json", str(found), "--limit", "20"]
    assert main(args) == 0
    report = json.loads(found.read_text())
    names = {"accuracy", "accuracy_low", "accuracy_high", "ece", "length_bias", "length_only", "n", "ties", "unscored"}
    assert names <= set(report)
    assert report["n"] == 20
    assert main(["fit", str(data), "--model", "minilm", "--out", str(out), *options]) == 2
    assert "--resume" in capsys.readouterr().err


def test_a_model_that_is_nowhere_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    data = tmp_path / "pairs.jsonl"
    data.write_text("\n".join(json.dumps({"prompt": f"p{i}", "chosen": "a", "rejected": "b"}) for i in range(10)))
    assert main(["fit", str(data), "--model", "nomodel", "--out", str(tmp_path / "o")]) == 2
    assert "--model nomodel: no such folder" in capsys.readouterr().err
