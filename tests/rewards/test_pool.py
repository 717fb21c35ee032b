"""Rewards in processes of their own: the scores they give here, whatever becomes of a process."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rewardkit.rewards.base import Constant, RewardBase, describe
from rewardkit.rewards.function import function_reward
from rewardkit.rewards.load import load_reward
from rewardkit.rewards.ops import ensemble, gate
from rewardkit.rewards.pool import InProcesses, in_processes
from rewardkit.rewards.rules.text import Length
from rewardkit.rewards.workers import joined, units_of
from rewardkit.types import ERROR, MISSING, OK, Cost, Rollout, Sample, Scores

FILE = '''
import os, subprocess, sys, time
from pathlib import Path

import torch

from rewardkit.rewards.base import RewardBase
from rewardkit.types import Scores


def words(completions, answer, log_metric, **_):
    log_metric("asked", len(answer[0]))
    return [None if "none" in c else float(len(c.split())) for c in completions]


def fragile(sample):
    if "raise" in sample.output:
        raise RuntimeError("a bad row")
    if "dies" in sample.output:
        os._exit(7)
    if "hangs" in sample.output:
        program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path(sample.hidden["note"]).write_text(str(program.pid))
        time.sleep(600)
    return float(len(sample.output))


def process(sample):
    return float(os.getpid())


def threads(sample):
    return float(torch.get_num_threads())


class Steps(RewardBase):
    """Dense, with as many steps as words; why, uncertainty, and what was seen together."""

    name, scope = "steps", "group"

    def __call__(self, rollout, ctx=None):
        long = [[float(len(w)) for w in s.output.split()] for s in rollout.samples]
        width = max(map(len, long))
        dense = torch.tensor([row + [0.0] * (width - len(row)) for row in long])
        size = torch.full((len(rollout),), float(len(rollout)) + (ctx or {}).get("step", 0))
        return Scores(size, {"step": dense}, std=size * 0.5, why=[s.output for s in rollout.samples])


def closure(sample):
    return MADE(sample)


MADE = lambda sample: 1.0
'''
OUTPUTS = ["one", "two words", "and three words", "none", "a b c d", "x"]


def rollout(outputs: list[str] = OUTPUTS, **options: Any) -> Rollout:
    samples = [Sample("Hi", o, hidden={"answer": f"{i}" * i}) for i, o in enumerate(outputs)]
    return Rollout(samples, torch.ones(len(samples), 2), **options)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rewards") / "mine.py"
    path.write_text(FILE)
    return path


@pytest.fixture
def pooled(file: Path) -> Iterator[Any]:
    made: list[InProcesses] = []

    def make(name: str, workers: int = 2, **options: Any) -> InProcesses:
        made.append(in_processes(load_reward(f"{file}:{name}"), workers, **options))
        return made[-1]

    yield make
    for reward in made:
        reward.close()


def same(found: Scores, expected: Scores) -> None:
    assert (found.outcome is None) == (expected.outcome is None)
    if expected.outcome is not None:
        assert torch.equal(found.outcome, expected.outcome)
    assert torch.equal(found.status, expected.status)
    assert found.why == expected.why
    assert set(found.dense) == set(expected.dense)
    assert all(torch.equal(found.dense[k], v) for k, v in expected.dense.items())
    assert (found.std is None) == (expected.std is None)
    assert found.std is None or torch.equal(found.std, expected.std)
    assert found.weights == expected.weights
    assert (found.cost.calls, found.cost.tokens) == (expected.cost.calls, expected.cost.tokens)
    for mine, theirs in ((found.parts, expected.parts), (found.before, expected.before)):
        assert list(mine) == list(theirs)
        for name in theirs:
            same(mine[name], theirs[name])


def test_scores_are_those_of_the_reward_itself(pooled: Any, file: Path) -> None:
    found, here = pooled("words")(rollout()), load_reward(f"{file}:words")(rollout())
    assert torch.equal(found.outcome, here.outcome)
    assert found.status.tolist() == [OK, OK, OK, MISSING, OK, OK]
    assert found.cost.calls == 6
    # A metric is logged a row here, and once a batch there.
    assert found.before["asked"].outcome.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert describe(found)["reward/asked"] == 2.5


def test_groups_stay_whole_and_every_field_comes_back(pooled: Any, file: Path) -> None:
    group = torch.tensor([4, 4, 0, 4, 0, 2])
    steps = pooled("Steps")
    found = steps(rollout(group=group), {"step": 10})
    assert found.outcome.tolist() == [13.0, 13.0, 12.0, 13.0, 12.0, 11.0]
    assert found.dense["step"].shape == (6, 4)
    assert found.dense["step"][2].tolist() == [3.0, 5.0, 5.0, 0.0]
    assert found.why == OUTPUTS
    assert torch.equal(found.std, found.outcome / 2)


def test_sums_gates_and_ensembles_keep_their_parts(file: Path) -> None:
    length, fixed = Length(unit="words"), Constant(2.0, "two")
    fragile = load_reward(f"{file}:fragile")
    for reward in (length + 0.5 * fixed, gate(length, fixed, -1.0, above=1.5), ensemble([length, fixed]), fragile):
        made = in_processes(reward, 2)
        try:
            outputs = [*OUTPUTS, "raise it"]
            same(made(rollout(outputs)), reward(rollout(outputs)))
        finally:
            made.close()


def test_rows_are_scored_in_several_processes_of_one_thread(pooled: Any) -> None:
    outcome = pooled("process")(rollout(["x"] * 64)).outcome
    assert os.getpid() not in outcome.tolist()
    assert len(set(outcome.tolist())) == 2
    assert set(pooled("threads")(rollout()).outcome.tolist()) == {1.0}


def test_a_process_that_dies_costs_its_row_alone(pooled: Any, caplog: pytest.LogCaptureFixture) -> None:
    outputs = ["a", "bb", "it dies", "ccc", "dddd", "again dies", *["e"] * 10]
    fragile = pooled("fragile")
    found = fragile(rollout(outputs))
    bad = [2, 5]
    assert [i for i, s in enumerate(found.status.tolist()) if s == ERROR] == bad
    assert all("ended with exit code 7" in found.why[i] for i in bad)
    assert found.outcome.tolist() == [0.0 if i in bad else float(len(o)) for i, o in enumerate(outputs)]
    assert "failed on row 2" in caplog.text
    assert fragile(rollout(["a", "bb"])).outcome.tolist() == [1.0, 2.0]
    alone = fragile(rollout(["dies"]))
    assert (alone.status.tolist(), alone.outcome.tolist()) == ([ERROR], [0.0])


def test_a_row_that_hangs_is_given_up_with_the_programs_it_began(pooled: Any, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    rows = rollout(["a", "hangs", "bb", "ccc"])
    rows.samples[1] = replace(rows.samples[1], hidden={"note": str(note)})
    # Long enough for a program to begin, short enough to wait for.
    found = pooled("fragile", timeout=3.0)(rows)
    assert found.status.tolist() == [OK, ERROR, OK, OK]
    assert found.why[1] == "no score within 3 s"
    assert found.outcome.tolist() == [1.0, 0.0, 2.0, 3.0]
    state = Path(f"/proc/{note.read_text()}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_a_part_of_a_sum_that_lost_its_process_is_an_error_too(file: Path) -> None:
    made = in_processes(load_reward(f"{file}:fragile") + Constant(1.0, "one"), 1)
    found = made(rollout(["a", "dies"]))
    made.close()
    assert found.status.tolist() == found.parts["fragile"].status.tolist() == [OK, ERROR]
    assert found.outcome.tolist() == [2.0, 0.0]


def test_what_is_wrong_with_the_function_is_raised_as_ever(pooled: Any) -> None:
    words = pooled("words")
    bare = Rollout([Sample("Hi", "x")], torch.ones(1, 1))
    with pytest.raises(ValueError, match=r"asks for \['answer'\]"):
        words(bare)
    assert words(rollout()).ok.sum() == 5


class Model(RewardBase):
    name = "model"

    def __init__(self) -> None:
        self.module = nn.Linear(1, 1)


class Memory(RewardBase):
    name = "memory"

    def state_dict(self) -> dict[str, Any]:
        return {"seen": 1}


async def waits(sample: Sample) -> float:
    return 1.0


@pytest.mark.parametrize(
    ("reward", "said"),
    [
        (lambda sample: 1.0, "top of a module or file"),
        (Model(), "in this process"),
        (Constant(1.0) + Model(), "in this process"),
        (Memory(), "would remember something else"),
        (Memory() + Constant(1.0), "would remember something else"),
        (waits, "wait together as it is"),
        (function_reward(len, scope="batch"), "cannot be divided"),
    ],
)
def test_what_cannot_be_sent_is_refused_with_the_mend(reward: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        in_processes(reward, 1)


def test_rows_that_cannot_be_sent_are_named(pooled: Any) -> None:
    with pytest.raises(ValueError, match="a row or ctx of reward 'fragile'"):
        pooled("fragile")(rollout(), {"log_extra": lambda name, column: None})


def test_sums_wait_for_it_and_copies_have_processes_of_their_own(pooled: Any) -> None:
    made = pooled("process")
    assert (made + Constant(1.0)).concurrent
    first = made(rollout(["a"])).outcome
    for twin in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert not torch.equal(twin(rollout(["a"])).outcome, first)
        twin.close()
    assert torch.equal(made(rollout(["a"])).outcome, first)
    assert len(made(rollout([]))) == 0


def test_forks_go_with_their_parents() -> None:
    rows = rollout(parent=torch.tensor([-1, 0, -1, 1, -1, 2]), start=torch.tensor([-1, 1, -1, 1, -1, 1]))
    assert units_of(rows, "sample") == [[0, 1, 3], [2, 5], [4]]
    grouped = replace(rollout(), group=torch.tensor([1, 0, 1, 0, 2, 2]))
    assert units_of(grouped, "group") == [[0, 2], [1, 3], [4, 5]]


def test_pieces_are_joined_in_their_order_and_what_is_absent_is_missing() -> None:
    one = Scores(
        torch.tensor([1.0, 2.0]), {"step": torch.ones(2, 3)}, cost=Cost(calls=1), before={"m": Scores(torch.ones(2))}
    )
    other = Scores(torch.tensor([3.0]), {"step": torch.ones(1, 5)}, why=["so"], cost=Cost(calls=2))
    found = joined([([3, 0], one), ([1], other)], 4)
    assert found.outcome.tolist() == [2.0, 3.0, 0.0, 1.0]
    assert found.status.tolist() == [OK, OK, MISSING, OK]
    assert found.why == [None, "so", None, None]
    assert found.dense["step"].sum(1).tolist() == [3.0, 5.0, 0.0, 3.0]
    assert found.cost.calls == 3
    assert found.before["m"].status.tolist() == [OK, MISSING, MISSING, OK]
