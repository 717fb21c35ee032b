"""``rewardkit worlds``."""

from __future__ import annotations

from pathlib import Path

import pytest

from rewardkit.cli.main import main
from rewardkit.worlds.assistant import model


def test_build_prints_where_the_base_policy_lies(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    monkeypatch.setattr(model, "DEFAULTS", model.DEFAULTS | {"shape": tiny, "demonstrations": 200, "vocabulary": 800})
    assert main(["worlds", "build", "assistant", "--steps", "2"]) == 0
    folder = Path(capsys.readouterr().out.split("  ")[0])
    assert folder.is_relative_to(cache)
    assert (folder / "model.safetensors").is_file()


def test_an_unknown_world_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["worlds", "build", "assistent"]) == 2
    assert "assistent" in capsys.readouterr().err
