import argparse
import json
import math
import os

import pytest
from benchmarks.speed import idle, run
from benchmarks.speed.compare import finding, gap, spread, table
from benchmarks.speed.idle import BusyError, Other
from benchmarks.speed.settings import setting

KEYS = {"ratio", "low", "high", "ours", "peer", "unit", "agrees", "tokens"}


def reports(seconds, peak, evidence):
    return [{"seconds": s, "peak_bytes": peak, "evidence": evidence, "expected": None} for s in seconds]


def test_the_ratio_is_the_median_of_each_repetitions_own():
    found = spread([1.0, 2.0, 4.0], [3.0, 4.0, 4.0])
    assert (found["low"], found["ratio"], found["high"]) == (1.0, 2.0, 3.0)
    assert (found["ours"], found["peer"]) == (2.0, 4.0)
    assert spread([1.0], [4.0], memory=True)["ratio"] == 0.25


def test_a_finding_is_of_time_or_of_memory():
    ours, theirs = reports([2.0, 2.0, 2.0], 100, [0.5]), reports([6.0, 5.0, 4.0], 400, [0.5])
    time = finding(setting("dpo_shared"), ours, theirs, peak=1e12)
    assert time["ratio"] == 2.5
    assert time["unit"] == "seconds"
    assert time["ours_tokens_per_second"] == time["tokens"] / 2
    assert time["peer_share_of_peak"] == time["operations"] / 5e12
    assert (time["ours_peak_bytes"], time["peer_peak_bytes"]) == (100, 400)
    assert time["agrees"] is True
    memory = finding(setting("memory"), ours, theirs, peak=1e12)
    assert (memory["ratio"], memory["unit"], memory["ours"], memory["peer"]) == (0.25, "bytes", 100, 400)
    assert set(time) >= KEYS
    assert set(memory) >= KEYS
    assert "dpo_shared" in table({"dpo_shared": time, "memory": memory})


def test_sides_that_compute_something_else_do_not_agree():
    ours, theirs = reports([1.0], 1, [0.70, 0.60]), reports([1.0], 1, [0.70, 0.61])
    assert not finding(setting("dpo_shared"), ours, theirs, peak=1.0)["agrees"]
    assert gap([1.0], [1.0]) == 0
    assert gap([1.0, math.nan], [1.0, 1.0]) == gap([1.0, 1.0], [1.0, math.nan]) == math.inf
    with pytest.raises(ValueError, match="1 numbers of ours"):
        gap([1.0], [])


def test_what_the_peer_drew_is_compared_in_the_peers_process():
    ours, theirs = reports([1.0], 1, []), reports([1.0], 1, [0.7])
    theirs[0]["expected"] = [0.7]
    assert finding(setting("grpo"), ours, theirs, peak=1.0)["agrees"]
    theirs[0]["expected"] = [0.8]
    assert not finding(setting("grpo"), ours, theirs, peak=1.0)["agrees"]


def test_a_busy_machine_is_waited_for_and_then_refused():
    said, moments = [], iter([0.0, 1.0, 2.0])
    with pytest.raises(BusyError, match=r"make \(pid 12, 90%\)"):
        idle.wait(1.5, look=lambda: [Other("make", 12, 0.9)], now=lambda: next(moments), say=said.append)
    assert said == ["waiting for the machine to be idle: make (pid 12, 90%)"]


def test_a_machine_that_becomes_idle_is_used():
    looks = iter([[Other("make", 12, 0.9)], [Other("make", 12, 0.05)]])
    idle.wait(60, look=lambda: next(looks), say=lambda _: None)
    assert next(looks, None) is None


def test_many_small_processes_count_together():
    with pytest.raises(BusyError):
        idle.wait(0, look=lambda: [Other(f"p{i}", i, 0.03) for i in range(5)])


def test_a_look_does_not_see_this_process():
    sum(range(200_000))
    assert os.getpid() not in {o.pid for o in idle.others(0.01)}


def told(tmp_path, *names):
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    return parser.parse_args([*names, "--json", str(tmp_path / "found.json"), "--wait", "0"])


@pytest.fixture
def quick(monkeypatch):
    machine = {"cpu": "a cpu", "cores": 2, "device": "cpu", "matmul_peak_gflops": 100.0}
    monkeypatch.setattr(run, "wait", lambda limit: None)
    monkeypatch.setattr(run, "output_of", lambda *module: json.dumps(machine))
    runs = {"ours": reports([1.0] * 3, 1, [0.5]), "peer": reports([3.0] * 3, 1, [0.5])}
    monkeypatch.setattr(run, "alternate", lambda chosen: runs)
    return runs


def test_the_file_maps_each_name_to_its_finding_beside_the_machine(tmp_path, quick):
    run.run(told(tmp_path, "dpo_long", "memory"))
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found) == {"dpo_long", "memory", "machine"}
    assert found["dpo_long"]["ratio"] == 3.0
    assert set(found["memory"]) >= KEYS
    assert found["machine"]["cpu"] == "a cpu"


def test_a_full_run_is_kept(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(run, "KEPT", tmp_path / "speed.json")
    run.run(argparse.Namespace(names=["dpo_long"], json=None, wait=0))
    assert not (tmp_path / "speed.json").exists()
    run.run(argparse.Namespace(names=[], json=None, wait=0))
    kept = json.loads((tmp_path / "speed.json").read_text())
    assert set(kept) == {"machine", "found"}
    assert len(kept["found"]) == 7


def test_sides_that_do_not_agree_end_the_run_with_an_error(tmp_path, quick):
    quick["ours"][1]["evidence"] = [0.6]
    with pytest.raises(SystemExit, match="do not compute the same in dpo_long"):
        run.run(told(tmp_path, "dpo_long"))


def test_a_busy_machine_ends_the_run_with_an_error(tmp_path, quick, monkeypatch):
    def refuse(limit):
        raise BusyError("the machine is not idle")

    monkeypatch.setattr(run, "wait", refuse)
    with pytest.raises(SystemExit, match="not idle"):
        run.run(told(tmp_path, "grpo"))
    assert not (tmp_path / "found.json").exists()


def test_an_unknown_name_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="no benchmark dpo; there are dpo_shared"):
        run.run(told(tmp_path, "dpo"))
