"""Best-of-n is a policy; its pool estimators are exact; a failed grader cannot win."""

from __future__ import annotations

import itertools

import pytest
import torch

from rewardkit.evals.closed_forms import best_of_n_distribution
from rewardkit.guidance.best_of_n import best_of_n, best_of_n_curve, best_of_n_kl
from rewardkit.policies.table import TablePolicy
from rewardkit.protocols import Policy
from rewardkit.rewards.base import RewardBase
from rewardkit.types import ERROR, OK, Cost, Scores

WORDS = ["a", "b", "c"]
VALUE = {"a": 0.0, "b": 1.0, "c": 2.0}


class Value(RewardBase):
    name = "value"

    def __init__(self, broken: str = "") -> None:
        self.broken = broken

    def __call__(self, rollout, ctx=None):
        outcome = torch.tensor([VALUE[s.output] for s in rollout.samples])
        status = torch.tensor([ERROR if s.output in self.broken else OK for s in rollout.samples])
        return Scores(outcome, status=status, cost=Cost(calls=len(rollout)))


def policy() -> TablePolicy:
    return TablePolicy(["x", "y"], WORDS)


def test_it_is_a_policy_whose_rows_stand_together_by_start():
    best = best_of_n(policy(), Value(), 4)
    assert isinstance(best, Policy)
    rollout = best.sample(["x", "y"], 3, seed=0)
    assert [s.prompt for s in rollout.samples] == ["x"] * 3 + ["y"] * 3
    assert rollout.group.tolist() == [0, 0, 0, 1, 1, 1]


def test_what_it_draws_follows_the_exact_distribution():
    base = policy()
    rollout = best_of_n(base, Value(), 3).sample(["x"], 1500, seed=1)
    counts = torch.tensor([sum(s.output == w for s in rollout.samples) for w in WORDS]) / 1500
    exact = best_of_n_distribution(torch.full((3,), 1 / 3).log(), torch.tensor([0.0, 1.0, 2.0]), 3).exp()
    torch.testing.assert_close(counts, exact, atol=0.05, rtol=0)


def test_the_cost_is_that_of_every_draw_and_every_score():
    rollout = best_of_n(policy(), Value(), 5).sample(["x", "y"], 2, seed=0)
    assert rollout.cost.calls >= 20


def test_the_drawing_policys_log_probs_are_not_passed_off_as_its_own():
    best = best_of_n(policy(), Value(), 2)
    rollout = best.sample(["x"], seed=0)
    assert "old_logps" not in rollout
    with pytest.raises(NotImplementedError, match="closed form"):
        best.evaluate(rollout)


def test_a_draw_whose_grader_failed_cannot_win():
    rollout = best_of_n(policy(), Value(broken="c"), 32).sample(["x"], 8, seed=0)
    assert {s.output for s in rollout.samples} == {"b"}


def test_an_output_all_of_whose_draws_failed_is_left_out_aloud():
    with pytest.warns(UserWarning, match="left out"):
        rollout = best_of_n(policy(), Value(broken="bc"), 1).sample(["x"], 30, seed=0)
    assert 0 < len(rollout) < 30
    with pytest.raises(ValueError, match="failed on every one"):
        best_of_n(policy(), Value(broken="abc"), 2).sample(["x"], seed=0)


def test_it_follows_the_policy_that_trains_and_a_kept_copy_does_not():
    base = policy()
    best = best_of_n(base, Value(), 1)
    frozen = best.keep("before")
    with torch.no_grad():
        base.logits[:, :, 0] = 50.0
    assert {s.output for s in best.sample(["x"], 20, seed=0).samples} == {"a"}
    assert len({s.output for s in frozen.sample(["x"], 20, seed=0).samples}) > 1


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_the_pool_estimator_is_the_mean_over_all_subsets(n):
    proxy = torch.tensor([0.3, 0.1, 0.9, 0.5, 0.2])
    value = torch.tensor([1.0, -2.0, 0.5, 4.0, 3.0])
    picks = [value[max(subset, key=lambda i: proxy[i])] for subset in itertools.combinations(range(5), n)]
    assert best_of_n_curve(proxy, value, [n]).item() == pytest.approx(float(torch.stack(picks).mean()), abs=1e-6)


def test_equal_proxies_share_their_weight():
    assert best_of_n_curve(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 4.0]), [2]).item() == 2.0


def test_n_beyond_the_pool_is_refused():
    with pytest.raises(ValueError, match="from 1 to the 2 draws"):
        best_of_n_curve(torch.zeros(2), torch.zeros(2), [3])


def test_the_kl_bound_is_zero_at_one_draw():
    assert best_of_n_kl(1) == 0.0
    assert best_of_n_kl(2) == pytest.approx(0.1931, abs=1e-4)
