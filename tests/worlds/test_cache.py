"""The cache of what worlds train."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from rewardkit.policies import language
from rewardkit.training import learner
from rewardkit.worlds import cache as store
from rewardkit.worlds import tokens
from rewardkit.worlds.assistant import corpus, model


def test_the_environment_chooses_the_folder(cache: Path) -> None:
    assert store.root() == cache


def test_a_thing_is_made_once_and_found_again(cache: Path) -> None:
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "weights").write_text("w")

    first = store.cached("toy", {"seed": 0}, make)
    assert store.cached("toy", {"seed": 0}, make) == first
    assert len(made) == 1
    assert first.parent == cache / "toy"
    assert (first / "weights").read_text() == "w"
    assert store.find("toy", {"seed": 0}) == first
    assert store.find("toy", {"seed": 1}) is None
    assert store.cached("toy", {"seed": 1}, make) != first
    store.cached("toy", {"seed": 0}, make, force=True)
    assert len(made) == 3


def test_a_build_that_dies_leaves_nothing_that_looks_finished(cache: Path) -> None:
    def broken(folder: Path) -> None:
        (folder / "weights").write_text("half")
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        store.cached("toy", {"seed": 0}, broken)
    assert store.find("toy", {"seed": 0}) is None
    assert [p for p in (cache / "toy").iterdir() if p.is_dir()] == []
    assert (store.cached("toy", {"seed": 0}, lambda f: None) / store.RECORD).is_file()


PROGRAM = """
import sys, time
from pathlib import Path
from rewardkit.worlds.cache import cached
def make(folder):
    with open(sys.argv[1], "a") as log:
        log.write("made\\n")
    time.sleep(0.5)
    (folder / "weights").write_text("w")
print((cached("toy", {"seed": 0}, make) / "weights").read_text())
"""


def test_two_processes_that_ask_at_once_build_once(cache: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    both = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, str(log)], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert [p.communicate(timeout=60)[0].strip() for p in both] == ["w", "w"]
    assert log.read_text() == "made\n"


HOLDER = """
import sys, time
from pathlib import Path
from rewardkit.worlds.cache import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_that_is_held_too_long_is_an_error_and_one_whose_holder_is_killed_is_free(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(TimeoutError, match="has held"), store.locked(path, patience=0.2):
        pass
    holder.kill()
    holder.wait()
    before = time.monotonic()
    with store.locked(path, patience=5):
        assert time.monotonic() - before < 5


def test_a_digest_changes_with_contents_and_names(tmp_path: Path) -> None:
    one, two = tmp_path / "a", tmp_path / "b"
    one.write_text("x")
    two.write_text("x")
    assert store.digest(one) != store.digest(two)
    before = store.digest(one)
    one.write_text("y")
    assert store.digest(one) != before


@pytest.mark.parametrize("world", [tokens, model])
def test_the_sources_of_a_base_model_hold_the_code_that_trains_it(world) -> None:
    found = store.sources(Path(world.__file__))
    assert {Path(m.__file__) for m in (world, learner, language, store)} <= found
    assert (Path(corpus.__file__) in found) == (world is model)


def test_facts_change_with_versions_with_imported_code_and_with_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PACKAGE", tmp_path)
    code, deep, data = tmp_path / "code.py", tmp_path / "deep.py", tmp_path / "data.yaml"
    code.write_text("from rewardkit.deep import X\n")
    deep.write_text("X = 1\n")
    data.write_text("a: 1\n")
    first = store.made_by(code, data)
    assert store.made_by(code, data) == first
    deep.write_text("X = 2\n")
    second = store.made_by(code, data)
    data.write_text("a: 2\n")
    third = store.made_by(code, data)
    assert len({f["source"] for f in (first, second, third)}) == 3
    monkeypatch.setattr("torch.__version__", "99.0")
    assert store.made_by(code, data)["torch"] == "99.0"
