"""The folder of a run."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rewardkit.training.checkpoint import Checkpoints
from rewardkit.training.folder import CHECKPOINTS, OPTIONS, finished, publish, run_in


def ranks(index: int = 0) -> Any:
    return SimpleNamespace(main=index == 0, broadcast=lambda thing: thing, wait=lambda: None)


def test_only_the_main_rank_takes_logs_and_publishes(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with run_in(out, {"lr": 1}, ranks=ranks(1)) as tracker:
        assert tracker is None
    publish(out, lambda folder: None, "summary.json", {}, ranks=ranks(1))
    assert not out.exists()
    with run_in(out, {"lr": 1}, ranks=ranks(0)) as tracker:
        assert tracker is not None
    publish(out, lambda folder: None, "summary.json", {}, ranks=ranks(0))
    assert (out / "summary.json").is_file()


def test_a_refusal_of_the_main_rank_reaches_the_others(tmp_path: Path) -> None:
    other = SimpleNamespace(main=False, broadcast=lambda thing: ValueError("already holds a run"))
    with pytest.raises(ValueError, match="already holds"), run_in(tmp_path, {}, ranks=other):  # type: ignore[arg-type]
        pass


def test_a_folder_is_given_back_only_if_there_is_nothing_to_go_on_with(tmp_path: Path) -> None:
    def fail(updates: int) -> None:
        with run_in(tmp_path, {"lr": 1}, ranks=ranks()):
            for step in range(updates):
                Checkpoints(tmp_path / CHECKPOINTS).save(step, {})
            raise ZeroDivisionError

    for updates in (0, 1):
        with pytest.raises(ZeroDivisionError):
            fail(updates)
        assert (tmp_path / OPTIONS).is_file() == (updates > 0)
    with pytest.raises(ValueError, match="--resume"), run_in(tmp_path, {"lr": 1}, ranks=ranks()):
        pass
    assert json.loads((tmp_path / OPTIONS).read_text()) == {"lr": 1}  # another run's folder stays its own


def test_a_complete_run_of_other_settings_is_not_called_complete(tmp_path: Path) -> None:
    assert not finished(tmp_path, "summary.json", {"lr": 1})
    (tmp_path / OPTIONS).write_text('{"lr": 1, "rows": 9}')
    assert not finished(tmp_path, "summary.json", {"lr": 1})
    (tmp_path / "summary.json").write_text("{}")
    assert finished(tmp_path, "summary.json", {"lr": 1})
    with pytest.raises(ValueError, match="lr was 1 and is 2"):
        finished(tmp_path, "summary.json", {"lr": 2})
