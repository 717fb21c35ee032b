"""Products of dense rewards and the cost of a bad end."""

from __future__ import annotations

import pytest
import torch

from rewardkit.rewards.base import Constant
from rewardkit.rewards.factors import MultiplicativePenalty, TerminationPenalty
from rewardkit.rewards.rules.observed import Observed, after, route_completion
from rewardkit.types import ERROR, Rollout, Sample, Scores


def rollout() -> Rollout:
    """Two rows, of two steps and of one; columns are progress, a factor and a fact."""
    seen = torch.tensor([[[0.0, 0, 0], [2.0, 0.5, 1.0]], [[0.0, 0, 0], [float("nan")] * 3]])
    reached = torch.tensor([[[3.0, 1.0, 0.0]], [[-4.0, 0.25, 1.0]]])
    samples = [Sample(0, [0, 0], ended="done"), Sample(1, [0], ended="cut")]
    mask = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    return Rollout(samples, mask, inputs={"observations": seen, "reached": reached})


def test_an_episode_ends_with_its_own_last_observation() -> None:
    assert after(rollout())[:, 0].tolist() == [[2.0, 0.5, 1.0], [-4.0, 0.25, 1.0]]
    assert after(rollout())[0, 1].tolist() == [3.0, 1.0, 0.0]


def test_the_product_step_by_step_and_not_of_padding() -> None:
    reward = MultiplicativePenalty(route_completion(0), Observed(1, name="factor"))
    found = reward(rollout())
    assert found.dense["token"].tolist() == [[1.0, 3.0], [0.0, 0.0]]
    assert found.before["route_completion"].before["sum"].outcome.tolist() == [5.0, 0.0]


def test_factors_outside_0_and_1_and_scores_without_steps_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the factor 'progress' leaves \[0, 1\]"):
        MultiplicativePenalty(Observed(1), Observed(0, name="progress"))(rollout())
    with pytest.raises(ValueError, match="'constant' gives no dense scores"):
        MultiplicativePenalty(Constant(1.0))(rollout())


def test_a_part_that_failed_leaves_its_row_unscored() -> None:
    class Failing(Observed):
        def __call__(self, rollout, ctx=None):  # type: ignore[no-untyped-def]
            return Scores(dense=super().__call__(rollout).dense, status=torch.tensor([0, ERROR]))

    found = MultiplicativePenalty(Observed(1), Failing(1, name="other"))(rollout())
    assert found.status.tolist() == [0, ERROR]


def test_only_a_bad_end_costs_and_what_was_worst_costs_more() -> None:
    found = TerminationPenalty(1.0, Observed(0, name="hint"), extra_size=2.0)(rollout())
    assert found.dense["token"].tolist() == [[0.0, -7.0], [0.0, 0.0]]
    with pytest.raises(ValueError, match="sizes are what it costs"):
        TerminationPenalty(-1.0)
