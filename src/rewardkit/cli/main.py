"""``rewardkit COMMAND ...``: finds the command's module, reads its options, turns errors into one clear line.

A command ``name`` is the module ``rewardkit.cli.name``, imported when it is asked for and not before. It has ``NAME``,
``HELP``, ``add_arguments(parser)`` and ``run(args) -> int``; and, where ``args.out`` does not say it, ``saved(args) ->
str`` for what an interrupted run leaves behind.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from rewardkit import __version__
from rewardkit.cli.config import ConfigError, parse

COMMANDS = {
    "demo": "the whole loop on an embedded world; ends with report.html and summary.json",
    "fit": "a reward model from comparisons",
    "score": "scores for rows of prompts and completions",
    "align": "a policy, optimised against a reward or on preference pairs",
    "eval": "how far a reward can be trusted: comparisons and benchmarks",
    "worlds": "build the embedded testbeds",
    "papers": "the catalogue of published works and each one's state",
    "reproduce": "run the recipes of published works",
}
"""Commands with the line that ``rewardkit --help`` shows; their modules are not imported for it."""

BAD_INPUT = (ConfigError, ValueError, KeyError, OSError, ImportError, FloatingPointError)
"""What a user can mend; with these, a grader that failed too often (see :func:`_foreseen`)."""

INTERRUPTED = 130


class Help(argparse.RawDescriptionHelpFormatter):
    """Every number and name that is taken where nothing is said is shown."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        said, default = action.help or "", action.default
        if isinstance(default, bool) or not isinstance(default, (int, float, str)) or default == argparse.SUPPRESS:
            return said
        return said if "default" in said else f"{said} (default: %(default)s)".strip()


class Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line, with exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 0 done, 2 bad input, 130 interrupted, 1 anything else."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 2
    except BrokenPipeError:  # the reader (head, less) had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _warn(message: Warning | str, *where: Any, **_: Any) -> None:
    """A warning is a line for a person, not a place in our source."""
    print(f"rewardkit: {message}", file=sys.stderr)


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"rewardkit {__version__}")
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        near = get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(COMMANDS)}"
        return _complain(f"no command {name!r}; {hint}")
    module = importlib.import_module(f"rewardkit.cli.{name}")
    return _run(module, arguments[1:])


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "rewardkit: learning from rewards",
            "",
            "usage: rewardkit COMMAND ... [--config FILE] [--debug] [key=value ...]",
            "",
            *lines,
            "",
            "rewardkit COMMAND --help shows a command's options. Every option can also be read from a YAML file",
            "(--config FILE) and be overridden by key=value at the end of the line.",
        ]
    )


def build_parser(module: ModuleType) -> argparse.ArgumentParser:
    """The parser of one command, with the options that every command has."""
    parser = Parser(
        prog=f"rewardkit {module.NAME}",
        description=module.HELP,
        formatter_class=Help,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    parser.add_argument("--config", metavar="FILE", help="YAML file of options; key=value and options override it")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _run(module: ModuleType, arguments: list[str]) -> int:
    debug = "--debug" in arguments
    args: argparse.Namespace | None = None
    try:
        args = parse(build_parser(module), arguments)
        return int(module.run(args) or 0)
    except KeyboardInterrupt:
        print(f"\nrewardkit {module.NAME}: interrupted; {_saved(module, args)}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:
        if debug or not _foreseen(error):
            raise
        return _complain(_one_line(error), module.NAME)


def _foreseen(error: Exception) -> bool:
    """Whether the error's message is all that a user needs, and a traceback would hide it."""
    if isinstance(error, BAD_INPUT):
        return True
    # Imported here: it brings torch along, which `rewardkit --help` does without.
    from rewardkit.rewards.ops import TooManyErrorsError

    return isinstance(error, TooManyErrorsError)


def _saved(module: ModuleType, args: argparse.Namespace | None) -> str:
    """What an interrupted run leaves behind, in words."""
    if args is None:
        return "nothing was started"
    if hasattr(module, "saved"):
        return str(module.saved(args))
    out = getattr(args, "out", None)
    if not out or not Path(out).exists():
        return "nothing was saved"
    if Path(out).is_file():
        return f"{out} keeps what was written to it"
    names = sorted(p.name for p in Path(out).iterdir())
    return f"{out} keeps {', '.join(names)}" if names else f"{out} is empty"


def _one_line(error: BaseException) -> str:
    if isinstance(error, KeyError) and error.args:  # str(KeyError) is the repr of its message
        text = str(error.args[0])
    elif isinstance(error, OSError) and error.filename:
        text = f"{error.filename}: {error.strerror or error}"
    else:
        text = str(error) or type(error).__name__
    return " ".join(text.split())


def _complain(text: str, command: str = "") -> int:
    print(f"rewardkit{' ' + command if command else ''}: {text}", file=sys.stderr)
    return 2
