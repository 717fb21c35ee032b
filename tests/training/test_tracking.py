"""Metrics on disk."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from rewardkit.training import Tracker, read_metrics


def test_rows_are_appended_and_on_disk_at_once(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, tensorboard=False)
    tracker.log(1, {"loss": 0.25, "note": "first"})
    tracker.log(2, {"loss": float("nan"), "n": 3})
    assert read_metrics(tmp_path / "metrics.jsonl") == [
        {"step": 1, "loss": 0.25, "note": "first"},
        {"step": 2, "loss": None, "n": 3},
    ]


def test_resuming_forgets_later_rows_and_a_torn_line(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, tensorboard=False)
    for step in range(1, 6):
        tracker.log(step, {"loss": float(step)})
    with tracker.path.open("a") as file:
        file.write('{"step": 6, "lo')
    again = Tracker(tmp_path, tensorboard=False)
    again.resume(3)
    again.log(4, {"loss": 40.0})
    assert [(r["step"], r["loss"]) for r in read_metrics(again.path)] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]


def test_the_row_that_ends_a_run_is_written_once(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, tensorboard=False)
    tracker.log(2, {"loss": 0.5, "held_out/accuracy": 0.75})
    for _ in range(2):  # the second time after a kill
        tracker.resume(2)
        tracker.conclude(2, {"held_out/accuracy": 0.5, "held_out/ece": 0.1})
    assert [r.get("held_out/ece") for r in read_metrics(tracker.path)] == [None, 0.1]


def test_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(ValueError, match="line 2"):
        read_metrics(path)


def test_tensorboard_gets_every_number(tmp_path: Path) -> None:
    with Tracker(tmp_path) as tracker:
        tracker.log(1, {"loss": 0.5, "note": "x"})
        tracker.log(2, {"loss": 0.25})
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(1, 0.5), (2, 0.25)]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_services_are_used_if_asked_and_named_if_absent(tmp_path: Path, monkeypatch, name) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"rewardkit\[{name}\]"):
        Tracker(tmp_path, also=(name,), tensorboard=False)
    said: list[object] = []
    fake = SimpleNamespace(
        init=lambda **o: said.append(o["project"]),
        log=lambda metrics, step: said.append((step, metrics)),
        finish=lambda: said.append("finished"),
    )
    monkeypatch.setitem(sys.modules, name, fake)
    with Tracker(tmp_path, also=(name,), project="p", tensorboard=False) as tracker:
        tracker.log(1, {"loss": 0.5})
    assert said == ["p", (1, {"loss": 0.5}), "finished"]


def test_unknown_service_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'mlflow'"):
        Tracker(tmp_path, also=("mlflow",))
