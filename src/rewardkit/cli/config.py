"""Options from a YAML file and from ``key=value`` words, for every command.

What is said later wins: the default, then the file, then the command line. An option that stands on the command line
both as ``--name`` and as ``name=`` is an error, not a riddle. A wrong key or value is a :class:`ConfigError` that names
the file, the line, the field and the nearest option.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

WORD = re.compile(r"^([A-Za-z][\w-]*)=(.*)$", re.DOTALL)
RESERVED = {"config", "debug", "help"}


class ConfigError(ValueError):
    """A key or value that a command does not take; the message names the place and the mend."""


@dataclass(frozen=True)
class Setting:
    """One ``key: value`` with the place it was read from (``run.yaml:3`` or ``on the command line``)."""

    key: str
    value: Any
    where: str

    def error(self, text: str) -> ConfigError:
        """The error of this setting: place, field, what is wrong."""
        return ConfigError(f"{self.where}: {self.key}: {text}")


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Parse ``argv`` with the settings of ``--config FILE`` and of trailing ``key=value`` words.

    Raises:
        ConfigError: for a key or value that the command does not take, or an option given twice.
    """
    flags, words = split_words(parser, argv)
    options = _options(parser)
    file = _config_of(flags)
    settings = read_file(file) if file else []
    given = {a.dest for a in options.values() if any(_is_flag(f, a.option_strings) for f in flags)}
    for setting in words:
        action = _action(options, setting)
        if action.dest in given:
            raise setting.error(f"is given twice, as {action.option_strings[-1]} and as {setting.key}=")
    for setting in [*settings, *words]:
        action = _action(options, setting)
        parser.set_defaults(**{action.dest: convert(action, setting)})
        action.required = False
    return parser.parse_args(flags)


def split_words(parser: argparse.ArgumentParser, argv: Sequence[str]) -> tuple[list[str], list[Setting]]:
    """The command line without its trailing ``key=value`` words, and those words.

    A word that is the value of the option before it (``--out a=b``) stays where it is.
    """
    end = len(argv)
    if "--" in argv:
        return list(argv), []
    while end and WORD.match(argv[end - 1]) and not (end > 1 and _takes_value(parser, argv[end - 2])):
        end -= 1
    words = []
    for text in argv[end:]:
        key, value = WORD.match(text).groups()  # type: ignore[union-attr]
        words.append(Setting(key, _plain(value), "on the command line"))
    return list(argv[:end]), words


def read_file(file: str | Path) -> list[Setting]:
    """The settings of a YAML file: one mapping of option names to values.

    Raises:
        ConfigError: for a file that is not such a mapping, a repeated key, or broken YAML, with its line.
    """
    import yaml

    try:
        text = Path(file).read_text(encoding="utf-8")
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: is not UTF-8 (byte {error.start})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{file}:{mark.line + 1}" if mark else str(file)
        raise ConfigError(f"{place}: is not YAML: {getattr(error, 'problem', error)}") from None
    if node is None:
        return []
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{file}:{node.start_mark.line + 1}: must be a mapping of option names to values")
    settings: list[Setting] = []
    for key_node, value_node in node.value:
        setting = Setting(
            str(loader.construct_object(key_node)),
            loader.construct_object(value_node, deep=True),
            f"{file}:{key_node.start_mark.line + 1}",
        )
        if any(s.key.replace("-", "_") == setting.key.replace("-", "_") for s in settings):
            raise setting.error("is given twice in this file")
        settings.append(setting)
    return settings


def convert(action: argparse.Action, setting: Setting) -> Any:
    """The value of a setting as its option would have read it from the command line.

    Raises:
        ConfigError: if the option cannot take it.
    """
    value = setting.value
    if action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
        if isinstance(value, str) and value.lower() in ("true", "yes", "on", "false", "no", "off"):
            value = value.lower() in ("true", "yes", "on")
        if not isinstance(value, bool):
            raise setting.error(f"must be true or false, not {value!r}")
        return value
    if value is None:
        return action.default
    if action.nargs in ("*", "+") or isinstance(action.nargs, int):
        values = value if isinstance(value, list) else [value]
        if isinstance(action.nargs, int) and len(values) != action.nargs:
            raise setting.error(f"takes {action.nargs} values, not {len(values)}")
        return [_one(action, setting, v) for v in values]
    if isinstance(value, (list, dict)):
        raise setting.error(f"takes one value, not a {'list' if isinstance(value, list) else 'mapping'}")
    return _one(action, setting, value)


def _one(action: argparse.Action, setting: Setting, value: Any) -> Any:
    kind: Any = action.type or str
    try:
        if isinstance(value, bool):
            raise ValueError
        converted = kind(str(value))
    except (ValueError, TypeError, argparse.ArgumentTypeError) as error:
        detail = f": {error}" if isinstance(error, argparse.ArgumentTypeError) else ""
        raise setting.error(f"must be {_kind_name(kind)}, not {value!r}{detail}") from None
    if action.choices is not None and converted not in action.choices:
        near = get_close_matches(str(converted), [str(c) for c in action.choices], 1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(map(str, action.choices))}"
        raise setting.error(f"cannot be {converted!r}; {hint}")
    return converted


def _kind_name(kind: Any) -> str:
    return {int: "a whole number", float: "a number", str: "text", Path: "a path"}.get(
        kind, getattr(kind, "__name__", "valid")
    )


def _plain(text: str) -> Any:
    """``key=value`` values are read by their option; only a bracketed list is split here."""
    if text.startswith("[") and text.endswith("]"):
        return [part.strip() for part in text[1:-1].split(",") if part.strip()]
    return text


def _options(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Every option that a setting may name, by its names with and without dashes."""
    found: dict[str, argparse.Action] = {}
    for action in parser._actions:
        if action.option_strings and action.dest not in RESERVED:
            longs = [s[2:] for s in action.option_strings if s.startswith("--") and not s.startswith("--no-")]
            for name in [action.dest, *longs]:
                found[name.replace("-", "_")] = action
    return found


def _action(options: dict[str, argparse.Action], setting: Setting) -> argparse.Action:
    key = setting.key.replace("-", "_")
    if key in options:
        return options[key]
    near = get_close_matches(key, options, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(options)) or 'none'}"
    raise setting.error(f"no such option; {hint}")


def _is_flag(word: str, names: Sequence[str]) -> bool:
    return any(word == name or word.startswith(name + "=") for name in names)


def _takes_value(parser: argparse.ArgumentParser, word: str) -> bool:
    action = parser._option_string_actions.get(word)
    return action is not None and action.nargs != 0 and not isinstance(action, argparse.BooleanOptionalAction)


def _config_of(flags: Sequence[str]) -> str | None:
    for i, word in enumerate(flags):
        if word == "--config" and i + 1 < len(flags):
            return flags[i + 1]
        if word.startswith("--config="):
            return word.partition("=")[2]
    return None
