"""Labels where there are some, a model that follows them elsewhere."""

from __future__ import annotations

import pytest
import torch

from rewardkit.rewards.base import RewardBase
from rewardkit.rewards.learned.meta import MetaReward
from rewardkit.types import ERROR, MISSING, OK, Rollout, Sample, Scores


class Labelled(RewardBase):
    name = "labelled"

    def __call__(self, rollout, ctx=None):
        values = [s.hidden.get("value") for s in rollout.samples]
        status = torch.tensor([MISSING if v is None else OK for v in values])
        return Scores(torch.tensor([v or 0.0 for v in values]), status=status)


class Constant(RewardBase):
    name = "constant"

    def __init__(self):
        self.value = 0.0

    def __call__(self, rollout, ctx=None):
        return Scores(torch.full((len(rollout),), self.value))


def rows():
    return Rollout([Sample("x", "a", hidden={"value": 2.0}), Sample("x", "b")], torch.ones(2, 1))


def learns(model):
    def fit(data, target):
        assert [s.output for s in data.samples] == ["a"]
        model.value = float(target.mean())
        return {"value": model.value}

    return fit


def test_the_model_speaks_for_rows_without_a_label_and_follows_the_labels():
    model = Constant()
    reward = MetaReward(Labelled(), model, fit=learns(model), every=2)
    scores = reward(rows())
    assert scores.outcome.tolist() == [2.0, 0.0]
    assert scores.ok.all()
    reward.update(rows(), scores, step=1)
    assert reward.seen == []
    reward.update(rows(), scores, step=2)
    assert reward(rows()).outcome.tolist() == [2.0, 2.0]


def test_it_can_be_left_as_it_is():
    model = Constant()
    reward = MetaReward(Labelled(), model, fit=learns(model), every=None)
    reward.update(rows(), reward(rows()), step=2)
    assert model.value == 0.0
    with pytest.raises(ValueError, match="every"):
        MetaReward(Labelled(), model, fit=learns(model), every=0)


def test_the_model_does_not_hide_that_the_labels_failed():
    class Failed(RewardBase):
        name = "failed"

        def __call__(self, rollout, ctx=None):
            return Scores(torch.zeros(2), status=torch.tensor([ERROR, MISSING]))

    found = MetaReward(Failed(), Constant(), fit=learns(Constant()))(rows())
    assert found.status.tolist() == [ERROR, OK]
