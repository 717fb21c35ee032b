"""Checkpoints that a crash cannot spoil."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from rewardkit.policies.table import TablePolicy
from rewardkit.training import Checkpoints, Learner
from rewardkit.training import checkpoint as module
from rewardkit.training.checkpoint import rng_state, set_rng_state


def learner(value: float = 0.0) -> Learner:
    return Learner(TablePolicy(["x"], ["a", "b"], logits=torch.full((1, 1, 2), value)))


def test_weights_are_safetensors_and_the_manifest_is_json(tmp_path: Path) -> None:
    path = Checkpoints(tmp_path).save(7, {"learner": learner(1.5)}, metrics={"gold": 0.5})
    assert load_file(path / "learner.safetensors")["logits"].tolist() == [[[1.5, 1.5]]]
    manifest = json.loads((path / "manifest.json").read_text())
    assert (manifest["step"], manifest["metrics"], manifest["parts"]) == (7, {"gold": 0.5}, ["learner"])
    assert manifest["versions"]["torch"] == torch.__version__


def test_last_ones_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2, best="gold")
    for step, gold in enumerate([0.1, 0.9, 0.2, 0.3, 0.4], 1):
        checkpoints.save(step, {"learner": learner()}, metrics={"gold": gold, "reward": step})
    assert [step for step, _ in checkpoints.all()] == [2, 4, 5]
    assert checkpoints.best().name == "step-00000002"
    assert checkpoints.latest().name == "step-00000005"
    low = Checkpoints(tmp_path, best="gold", mode="min")
    assert low.best().name == "step-00000004"


def test_checkpoint_without_the_metric_is_never_the_best(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, best="gold")
    checkpoints.save(1, {"learner": learner()})
    checkpoints.save(2, {"learner": learner()}, metrics={"gold": float("nan")})
    assert checkpoints.best() is None
    checkpoints.save(3, {"learner": learner()}, metrics={"gold": -1.0})
    assert checkpoints.best().name == "step-00000003"


@pytest.mark.parametrize("where", ["save", "manifest", "rename", "aside", "forget"])
@pytest.mark.parametrize("step", [1, 2])
def test_a_crash_at_any_moment_leaves_a_loadable_latest(tmp_path: Path, monkeypatch, where, step) -> None:
    """Writing step 2, or step 1 again over itself, dies at each stage; what was there, or the new one, is loaded."""
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(1, {"learner": learner(1.0)})

    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    replace = os.replace
    if where == "save":
        monkeypatch.setattr(module.torch, "save", die)
    elif where == "manifest":
        monkeypatch.setattr(module.json, "dumps", die)
    elif where == "rename":
        monkeypatch.setattr(module.os, "replace", die)
    elif where == "aside":
        monkeypatch.setattr(module.os, "replace", lambda a, b: die() if ".writing" in str(a) else replace(a, b))
    else:
        monkeypatch.setattr(module.shutil, "rmtree", die)
    with contextlib.suppress(Killed):
        checkpoints.save(step, {"learner": learner(2.0)})
    monkeypatch.undo()
    resumed = learner()
    found = Checkpoints(tmp_path, keep=1).resume_or_start({"learner": resumed})
    new = where == "forget"
    assert found["step"] == (step if new else 1)
    assert resumed.module.logits[0, 0, 0].item() == (2.0 if new else 1.0)
    assert not list(tmp_path.glob(".writing-*"))


def test_fresh_folder_starts_and_other_runs_are_refused(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.resume_or_start({"learner": learner()}) == {"step": 0}
    checkpoints.save(1, {"learner": learner()}, extra={"settings": {"seed": 0}})
    with pytest.raises(ValueError, match=r"holds \['learner'\], this run has \['critic', 'learner'\]"):
        checkpoints.resume_or_start({"learner": learner(), "critic": learner()})
    with pytest.raises(ValueError, match="seed was 0 and is 1"):
        checkpoints.resume_or_start({"learner": learner()}, settings={"seed": 1})
    assert checkpoints.resume_or_start({"learner": learner()}, settings={"seed": 0})["step"] == 1


def test_the_best_and_the_last_are_read_without_the_rest(tmp_path: Path) -> None:
    checkpoints, one = Checkpoints(tmp_path, best="gold"), learner()
    assert checkpoints.last() == {"step": 0}
    assert checkpoints.load_best("learner", one) is None
    checkpoints.save(1, {"learner": learner(1.0), "critic": learner()}, metrics={"gold": 1.0})
    checkpoints.save(2, {"learner": learner(2.0), "critic": learner()}, metrics={"gold": 0.0}, extra={"stopped": True})
    state = torch.get_rng_state()
    torch.rand(())
    moved = torch.get_rng_state()
    assert checkpoints.load_best("learner", one) == 1
    assert one.module.logits[0, 0, 0].item() == 1.0
    assert checkpoints.last() == {"step": 2, "stopped": True}
    assert torch.equal(torch.get_rng_state(), moved)
    assert not torch.equal(state, moved)


def test_generators_continue_where_they_were(tmp_path: Path) -> None:
    checkpoints, one = Checkpoints(tmp_path), learner()
    checkpoints.save(1, {"learner": one})

    def draw() -> list[float]:
        return [float(torch.rand(())), float(np.random.rand()), random.random()]  # noqa: NPY002

    expected = draw()
    draw()
    checkpoints.resume_or_start({"learner": one})
    assert draw() == expected
    state = rng_state()
    expected = draw()
    set_rng_state(state)
    assert draw() == expected


def test_foreign_folders_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "step-broken").mkdir()
    checkpoints = Checkpoints(tmp_path, keep=1)
    for step in (1, 2):
        checkpoints.save(step, {"learner": learner()})
    assert (tmp_path / "notes").is_dir()
    assert [s for s, _ in checkpoints.all()] == [2]
    shutil.rmtree(checkpoints.latest())
    assert checkpoints.latest() is None
