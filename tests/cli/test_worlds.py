"""``rewardkit worlds``."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest

from rewardkit.cli.main import main
from rewardkit.cli.worlds import WORLDS
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


@pytest.mark.parametrize("world", sorted(WORLDS))
def test_every_world_takes_the_options_of_the_command(world: str) -> None:
    module, name = WORLDS[world]
    made = getattr(importlib.import_module(module), name)
    inspect.signature(made).bind(seed=0)
    inspect.signature(made.build).bind(None, force=False, steps=2)


def test_an_unknown_world_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["worlds", "build", "assistent"]) == 2
    assert "assistent" in capsys.readouterr().err
