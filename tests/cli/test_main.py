"""The frame of the command line: finding commands, errors in one line, exit codes."""

from __future__ import annotations

import importlib
import subprocess
import sys
import types
from pathlib import Path

import pytest

from rewardkit.cli import main as frame
from rewardkit.rewards.ops import TooManyErrorsError


def command(monkeypatch, run, *, options=(), saved=None):
    """Install a throw-away command called ``probe``."""
    module = types.ModuleType("rewardkit.cli.probe")
    module.NAME, module.HELP, module.run = "probe", "a probe", run

    def add_arguments(parser):
        for names, keywords in options:
            parser.add_argument(*names, **keywords)

    module.add_arguments = add_arguments
    if saved is not None:
        module.saved = saved
    monkeypatch.setitem(sys.modules, "rewardkit.cli.probe", module)
    monkeypatch.setitem(frame.COMMANDS, "probe", "a probe")


def test_help_lists_every_command_without_importing_torch():
    code = "import sys; from rewardkit.cli.main import main; main(['--help']); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in frame.COMMANDS:
        assert f"  {name} " in done.stdout


@pytest.mark.parametrize("name", sorted(frame.COMMANDS))
def test_every_listed_command_exists_and_shows_its_options(name, capsys):
    module = importlib.import_module(f"rewardkit.cli.{name}")
    assert name == module.NAME
    assert module.HELP
    assert frame.main([name, "--help"]) == 0
    assert "--config" in capsys.readouterr().out


def test_an_unknown_command_names_the_nearest(capsys):
    assert frame.main(["papres"]) == 2
    assert "did you mean 'papers'" in capsys.readouterr().err


def test_bad_input_is_one_line_and_exit_code_2(monkeypatch, capsys):
    def run(args):
        raise ValueError("data.jsonl:3: chosen is empty;\n remove the row")

    command(monkeypatch, run)
    assert frame.main(["probe"]) == 2
    err = capsys.readouterr().err
    assert err == "rewardkit probe: data.jsonl:3: chosen is empty; remove the row\n"


@pytest.mark.parametrize(
    "error",
    [ImportError("pip install it"), FloatingPointError("lower the rate"), TooManyErrorsError("mend the grader")],
)
def test_other_failures_that_a_user_can_mend_are_one_line_too(monkeypatch, capsys, error):
    def run(args):
        raise error

    command(monkeypatch, run)
    assert frame.main(["probe"]) == 2
    assert capsys.readouterr().err == f"rewardkit probe: {error}\n"


def test_debug_shows_the_traceback(monkeypatch):
    def run(args):
        raise ValueError("broken")

    command(monkeypatch, run)
    with pytest.raises(ValueError, match="broken"):
        frame.main(["probe", "--debug"])


def test_a_missing_file_is_named(monkeypatch, capsys):
    command(monkeypatch, lambda args: len(Path("/nowhere/x.jsonl").read_text()))
    assert frame.main(["probe"]) == 2
    assert "/nowhere/x.jsonl: No such file" in capsys.readouterr().err


def test_a_programming_error_is_not_hidden(monkeypatch):
    command(monkeypatch, lambda args: [].nothing)
    with pytest.raises(AttributeError):
        frame.main(["probe"])


def test_an_interrupt_says_what_was_saved(monkeypatch, capsys, tmp_path):
    def run(args):
        (tmp_path / "checkpoint-4").mkdir()
        raise KeyboardInterrupt

    command(monkeypatch, run, options=[(("--out",), {})])
    assert frame.main(["probe", "--out", str(tmp_path)]) == 130
    assert f"{tmp_path} keeps checkpoint-4" in capsys.readouterr().err


def test_a_command_may_say_itself_what_was_saved(monkeypatch, capsys):
    def run(args):
        raise KeyboardInterrupt

    command(monkeypatch, run, saved=lambda args: "three arms are in the cache")
    assert frame.main(["probe"]) == 130
    assert "three arms are in the cache" in capsys.readouterr().err


def test_options_are_not_abbreviated(monkeypatch, capsys):
    command(monkeypatch, lambda args: 0, options=[(("--policy",), {})])
    assert frame.main(["probe", "--pol", "x"]) == 2
    assert "--pol" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error():
    code = "from rewardkit.cli.main import main; import sys; sys.exit(main(['papers']))"
    done = subprocess.run(
        f'{sys.executable} -c "{code}" | head -1', shell=True, capture_output=True, text=True, timeout=120
    )
    assert "Traceback" not in done.stderr
