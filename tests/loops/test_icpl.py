"""What the writer is told, that only answers decide, and that programs which cannot be read are asked for again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rewardkit.feedback.best_worst import SimulatedBestWorst
from rewardkit.loops.icpl import Tried, icpl
from rewardkit.papers.program_writer import Mutator


def train(text: str) -> Tried[int]:
    return Tried(text, int(text), {"all": [0.0, float(text)]})


class Script:
    """A writer that says its lines, and remembers what it was asked."""

    def __init__(self, *said: str) -> None:
        self.said, self.asked = iter(said), list[str]()

    def __call__(self, asked: str) -> str:
        self.asked.append(asked)
        return next(self.said)


def run(write: Script, **options: object) -> list[str]:
    ask = SimulatedBestWorst(lambda t: t.policy)
    turns: Iterator = icpl("count", write, train, ask, k=2, rounds=3, **options)  # type: ignore[arg-type]
    found = [turn.best.item.program for turn in turns]
    assert ask.answers == 6
    return found


def test_the_request_tells_best_worst_traces_and_history() -> None:
    write = Script("1\n5", "7\n2", "3\n4")
    assert run(write) == ["5", "7", "7"]
    first, second, third = write.asked
    assert "best" not in first
    assert "best: 5\n" in second
    assert "worst: 1\n" in second
    assert "trace of best: all = 0 5" in second
    assert "was best: 5" in third
    assert "changed: the best is now 7, where it was 5" in third


def test_without_history_and_traces_only_two_programs_are_told() -> None:
    write = Script("1\n5", "7\n2", "3\n4")
    run(write, history=False, traces=False)
    assert write.asked[2].splitlines()[2:] == ["best: 7", "worst: 2"]


def test_what_cannot_be_read_is_asked_for_again_and_never_trained() -> None:
    write = Script("1\nimport os", "oops", "5", "7\n2", "3\n4")
    assert run(write) == ["5", "7", "7"]
    with pytest.raises(ValueError, match="no program in 2 requests could be read; the last one: invalid literal"):
        list(icpl("count", lambda asked: "x", train, SimulatedBestWorst(float), attempts=2))


def test_a_liar_is_believed() -> None:
    ask = SimulatedBestWorst(lambda t: t.policy, inverted=True)
    turns = icpl("count", Script("1\n5", "7\n-2", "3\n4"), train, ask, k=2, rounds=3)
    assert [t.best.item.program for t in turns] == ["1", "-2", "-2"]


def test_the_mutator_moves_coefficients_the_way_the_traces_say() -> None:
    asked = (
        "task: x\nwrite: 400 programs, one a line\nbest: (1.0 * goal) + (-1.0 * mud)\ntrace of best: 0 = 0 2\n"
        "trace of best: 1 = 0 -1\nworst: (1.0 * goal) + (-1.0 * mud)\ntrace of worst: 0 = 0 1\ntrace of worst: 1 = 0 -4"
    )
    names = ["goal", "mud", "pit"]

    def mean(request: str, **options: bool) -> float:
        lines = Mutator(names, seed=0, **options)(request).splitlines()
        assert len(lines) == 400
        drawn = [float(t.split(" * ")[0].strip("(")) for x in lines for t in x.split(" + ") if "goal)" in t]
        return sum(drawn) / len(drawn)

    # The best had 2 of it and the worst 1: half of 2 more on average. Without traces, no direction.
    assert mean(asked) == pytest.approx(1.9, abs=0.25)
    silent = "\n".join(x for x in asked.splitlines() if "trace" not in x)
    assert mean(silent) == pytest.approx(1.0, abs=0.25)
    assert mean(asked, deaf=True) == pytest.approx(0.0, abs=0.7)
