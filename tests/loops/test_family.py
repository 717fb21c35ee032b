"""Families: rows of one question, known by what their prompts carry, in every turn."""

from __future__ import annotations

from typing import Any

from rewardkit.credit.group import rloo
from rewardkit.loops.online import online
from rewardkit.loops.prompts import PromptSet
from rewardkit.objectives.policy import reinforce
from rewardkit.policies.table import TablePolicy
from rewardkit.training.learner import Learner
from rewardkit.types import Sample


def likes_a(completions: list[Any], **_: Any) -> list[float]:
    return [float(c == "a") for c in completions]


def families(prompts: list[Sample]) -> list[tuple[list[str], list[int]]]:
    run = online(
        Learner(TablePolicy(["x", "y", "z"], ["a", "b"]), lr=0.1), PromptSet(prompts, seed=1), likes_a, rloo, reinforce,
        reference=None, steps=4, n=2, batch=2,
    )  # fmt: skip
    return [([s.prompt for s in t.rollout.samples], t.rollout.family.tolist()) for t in run]


def test_prompts_say_which_question_they_ask() -> None:
    number = {"x": 7, "y": 3, "z": 7}
    found = families([Sample(p, hidden={"family": n}) for p, n in number.items()])
    assert all(family == [number[p] for p in names] for names, family in found)
    assert len({tuple(names) for names, _ in found}) > 1


def test_without_a_number_for_every_prompt_a_group_is_its_own_family() -> None:
    partly = [Sample("x", hidden={"family": 5}), Sample("y"), Sample("z")]
    for names, family in families(partly):
        if "y" in names or "z" in names:
            assert family == [0, 0, 1, 1]


def test_names_that_are_no_numbers_are_numbered() -> None:
    number = {"x": "one", "y": "two", "z": "one"}
    for names, family in families([Sample(p, hidden={"family": n}) for p, n in number.items()]):
        for a, m in zip(names, family, strict=True):
            for b, n in zip(names, family, strict=True):
                assert (number[a] == number[b]) == (m == n)
