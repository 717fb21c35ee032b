"""A run that is killed outright goes on to the same curve."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rewardkit.training import Checkpoints, read_metrics

SCRIPT = Path(__file__).with_name("resumable.py")


def in_process(folder: Path, kind: str, steps: int) -> None:
    found = importlib.util.spec_from_file_location("resumable", SCRIPT)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    module.main(folder, kind, steps)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("kind", "steps", "at"), [("table", 40, 17), ("language", 12, 5)])
def test_killed_run_resumes_to_the_same_curve(tmp_path: Path, kind: str, steps: int, at: int) -> None:
    """R65: SIGKILL at an arbitrary moment, then the same command again."""
    folder = tmp_path / "killed"
    command = [sys.executable, str(SCRIPT), str(folder), kind, str(steps)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        for line in process.stdout:
            if int(line) == at:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    assert 0 < Checkpoints(folder / "checkpoints").all()[-1][0] < steps
    in_process(folder, kind, steps)
    in_process(tmp_path / "whole", kind, steps)
    whole, again = read_metrics(tmp_path / "whole" / "metrics.jsonl"), read_metrics(folder / "metrics.jsonl")
    assert [r["step"] for r in whole] == list(range(steps + 1))
    assert again == whole
    assert whole[-1]["held_out/size"] != whole[0]["held_out/size"]
