"""Options from files and words: what wins, and how a mistake is named."""

from __future__ import annotations

import argparse

import pytest

from rewardkit.cli.config import ConfigError, parse


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(allow_abbrev=False)
    p.add_argument("data", nargs="?")
    p.add_argument("--beta", type=float, default=0.1)
    p.add_argument("--max-steps", type=int, default=5)
    p.add_argument("--objective", choices=["dpo", "ipo"], default="dpo")
    p.add_argument("--policy", required=True)
    p.add_argument("--out", default="out")
    p.add_argument("--packed", action=argparse.BooleanOptionalAction, default=False)
    p.add_argument("--quiet", action="store_true")
    p.add_argument("--betas", type=float, nargs="+")
    p.add_argument("--config")
    return p


@pytest.fixture
def written(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "run.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_file_beats_default_and_command_line_beats_file(written):
    file = written("beta: 0.2\nmax_steps: 7\npolicy: a\nout: from-file\n")
    args = parse(parser(), ["d.jsonl", "--config", file, "--out", "flag", "max-steps=9"])
    assert (args.data, args.beta, args.max_steps, args.policy, args.out) == ("d.jsonl", 0.2, 9, "a", "flag")
    assert args.objective == "dpo"


def test_a_required_option_may_come_from_a_word():
    assert parse(parser(), ["policy=m"]).policy == "m"


def test_numbers_that_yaml_reads_as_text_are_numbers(written):
    assert parse(parser(), ["--config", written("policy: m\nbeta: 1e-3\n")]).beta == 1e-3


def test_flags_and_lists(written):
    file = written("policy: m\npacked: true\nquiet: yes\nbetas: [0.1, 1]\n")
    args = parse(parser(), ["--config", file, "packed=false"])
    assert args.packed is False
    assert args.quiet is True
    assert args.betas == [0.1, 1.0]
    assert parse(parser(), ["policy=m", "betas=[1,2]"]).betas == [1.0, 2.0]


def test_a_word_that_is_an_options_value_stays_one():
    args = parse(parser(), ["--policy", "m", "--out", "a=b"])
    assert args.out == "a=b"


def test_a_word_may_hold_equal_signs():
    assert parse(parser(), ["policy=hub/name?rev=1"]).policy == "hub/name?rev=1"


def test_given_twice_on_the_line_is_an_error():
    with pytest.raises(ConfigError, match="beta: is given twice, as --beta"):
        parse(parser(), ["--policy", "m", "--beta", "1", "beta=2"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("policy: m\nbetta: 1\n", r"run.yaml:2: betta: no such option; did you mean 'beta'"),
        ("policy: m\n\nbeta: lots\n", r"run.yaml:3: beta: must be a number, not 'lots'"),
        ("max_steps: 2.5\n", r"run.yaml:1: max_steps: must be a whole number"),
        ("max_steps: true\n", r"run.yaml:1: max_steps: must be a whole number, not True"),
        ("objective: dpoo\n", r"run.yaml:1: objective: cannot be 'dpoo'; did you mean 'dpo'"),
        ("packed: 3\n", r"run.yaml:1: packed: must be true or false"),
        ("beta: [1, 2]\n", r"run.yaml:1: beta: takes one value, not a list"),
        ("beta: 1\nbeta: 2\n", r"run.yaml:2: beta: is given twice"),
        ("- beta\n", r"run.yaml:1: must be a mapping"),
        ("beta: [1\n", r"run.yaml:\d: is not YAML"),
        ("config: other.yaml\n", r"run.yaml:1: config: no such option"),
    ],
)
def test_mistakes_in_the_file_name_file_line_and_field(written, text, said):
    with pytest.raises(ConfigError, match=said):
        parse(parser(), ["--policy", "m", "--config", written(text)])


def test_a_file_that_is_not_utf8_is_named(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes(b"policy: \xff\xfe\n")
    with pytest.raises(ConfigError, match=r"run\.yaml: is not UTF-8"):
        parse(parser(), ["--config", str(path)])


def test_mistakes_in_words_name_the_field():
    with pytest.raises(ConfigError, match=r"on the command line: polcy: no such option; did you mean 'policy'"):
        parse(parser(), ["polcy=m"])
