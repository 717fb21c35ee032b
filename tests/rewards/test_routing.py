"""Rows go to the reward of their kind, and nobody sees the others'."""

from __future__ import annotations

import pytest
import torch

from rewardkit.rewards.base import RewardBase
from rewardkit.rewards.routing import Route
from rewardkit.types import ERROR, OK, Cost, Rollout, Sample, Scores


class Sees(RewardBase):
    def __init__(self, name, scope="sample"):
        self.name, self.scope, self.rows, self.told = name, scope, [], []

    def __call__(self, rollout, ctx=None):
        self.rows.append([s.output for s in rollout.samples])
        return Scores(torch.arange(len(rollout)).float(), cost=Cost(calls=len(rollout)))

    def update(self, rollout, scores, **progress):
        self.told.append(scores.outcome.tolist())


def rows(kinds):
    return Rollout([Sample("x", str(i), hidden={"kind": k}) for i, k in enumerate(kinds)], torch.ones(len(kinds), 1))


def test_each_reward_sees_its_own_rows_in_order():
    a, b = Sees("a"), Sees("b", "group")
    route = Route("kind", {"a": a, "b": b})
    found = route(rows("abba"))
    assert a.rows == [["0", "3"]]
    assert b.rows == [["1", "2"]]
    assert found.outcome.tolist() == [0.0, 0.0, 1.0, 1.0]
    assert found.cost.calls == 4
    assert route.scope == "group"
    route.update(rows("abba"), found, step=1)
    assert a.told == [[0.0, 1.0]]


def test_an_unknown_kind_is_an_error_that_names_the_known_ones():
    found = Route("kind", {"a": Sees("a")})(rows("ac"))
    assert found.status.tolist() == [OK, ERROR]
    assert "'a'" in found.why[1]


def test_no_kinds_at_all_is_refused():
    with pytest.raises(ValueError, match="at least one kind"):
        Route("kind", {})


def test_dense_scores_are_not_lost_in_silence():
    class Dense(RewardBase):
        name = "dense"

        def __call__(self, rollout, ctx=None):
            return Scores(dense={"token": torch.ones(len(rollout), 1)})

    with pytest.raises(ValueError, match="token"):
        Route("kind", {"a": Sees("a") + Dense()})(rows("aa"))
