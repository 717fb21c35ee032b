"""Stopping points and the measurement behind them."""

import math

import pytest
import torch

from rewardkit.evals.overoptimization import Point, Ruler, outcomes, stopping_point, wins
from rewardkit.policies.table import TablePolicy
from rewardkit.types import ERROR, Judgement, Sample, Scores


class ByOutput:
    """A reward that looks outputs up."""

    scope = "sample"

    def __init__(self, name, table):
        self.name, self.table = name, table

    def __call__(self, rollout, ctx=None):
        return Scores(torch.tensor([self.table[s.output] for s in rollout.samples]))


def point(step, rate, asked=100):
    return Point(step, 0.1 * step, 0.0, 0.0, 0.5, 9.0, 100, preferred=rate, asked=asked)


def test_stopping_takes_the_least_kl_within_one_standard_error():
    rates = [0.5, 0.7, 0.78, 0.8, 0.6]
    # the best is 0.8 of 100 asked: standard error 0.04, so 0.78 counts as equal and comes first
    assert stopping_point([point(i, r) for i, r in enumerate(rates)]) == 2
    assert stopping_point([point(i, r, asked=10000) for i, r in enumerate(rates)]) == 3


def test_stopping_refuses_points_where_nobody_was_asked():
    with pytest.raises(ValueError, match="preferences"):
        stopping_point([point(0, None)])


def test_preferences_count_ties_half_and_read_pools_prompt_by_prompt():
    policy = TablePolicy(["x", "y"], ["a", "b"])
    said = iter([(0, 1), (1, 0), (0, 0), (0, 1)])
    seen = []

    def compare(new, old):
        seen.extend((a.prompt, b.prompt) for a, b in zip(new, old, strict=True))
        return [Judgement((a, b), rank=next(said)) for a, b in zip(new, old, strict=True)]

    reward = ByOutput("r", {"a": 1.0, "b": 0.0})
    ruler = Ruler(policy, [Sample("x")], reward, reward, validation=[Sample("x"), Sample("y")], compare=compare)
    pool = policy.sample(["x", "y"], n=2, seed=0)
    assert ruler.preferences(pool).tolist() == [1.0, 0.0, 0.5, 1.0]
    assert seen == [("x", "x"), ("x", "x"), ("y", "y"), ("y", "y")]


def test_wins_are_antisymmetric():
    a, b = torch.randn(50), torch.randn(50).round()
    assert torch.equal(wins(a, b) + wins(b, a), torch.ones(50))


def test_an_unscored_row_is_never_averaged_away():
    def broken(rollout, ctx=None):
        return Scores(torch.zeros(len(rollout)), status=torch.tensor([0, ERROR]), why=[None, "no answer"])

    broken.name, broken.scope = "broken", "sample"
    policy = TablePolicy(["x"], ["a", "b"])
    with pytest.raises(ValueError, match="could not score 1 rows, first row 1: no answer"):
        outcomes(broken, policy.sample(["x"], n=2, seed=0))


def test_measured_kl_and_rewards_agree_with_the_exact_ones():
    """KL from policy to start, in this direction, against the closed form."""
    start = TablePolicy(["x"], ["a", "b"], logits=torch.tensor([[[0.0, 0.0]]]))
    tuned = TablePolicy(["x"], ["a", "b"], logits=torch.tensor([[[2.0, 0.0]]]))
    gold, proxy = ByOutput("gold", {"a": 1.0, "b": 0.0}), ByOutput("proxy", {"a": 3.0, "b": 1.0})
    ruler = Ruler(start, [Sample("x")] * 4000, proxy, gold)
    p = torch.tensor([2.0, 0.0]).softmax(0)
    exact_kl = float((p * (p / 0.5).log()).sum())
    measured = ruler.measure(tuned, step=7)
    error = 4 / math.sqrt(4000)
    assert measured.step == 7
    assert measured.kl == pytest.approx(exact_kl, abs=error * 2)
    assert measured.gold == pytest.approx(float(p[0]), abs=error * 0.5)
    assert measured.proxy == pytest.approx(1 + 2 * float(p[0]), abs=error)
    # P(win) + P(tie) / 2 against an independent uniform draw
    assert measured.winrate == pytest.approx(0.5 + (float(p[0]) - 0.5) / 2, abs=error * 0.5)
    assert ruler.measure(start, step=0).kl == pytest.approx(0.0, abs=1e-6)


def test_annotators_without_validation_prompts_are_refused():
    policy = TablePolicy(["x"], ["a", "b"])
    reward = ByOutput("r", {"a": 1.0, "b": 0.0})
    with pytest.raises(ValueError, match="validation="):
        Ruler(policy, [Sample("x")], reward, reward, compare=lambda new, old: [])


def test_annotators_are_asked_on_the_validation_prompts_only():
    asked = []

    def compare(new, old):
        asked.extend(s.prompt for s in new)
        return [Judgement((a, b), rank=(0, 1)) for a, b in zip(new, old, strict=True)]

    policy = TablePolicy(["x", "y"], ["a", "b"])
    reward = ByOutput("r", {"a": 1.0, "b": 0.0})
    ruler = Ruler(policy, [Sample("x")] * 8, reward, reward, validation=[Sample("y")] * 5, compare=compare)
    assert ruler.measure(policy, 0).preferred == 1.0
    assert set(asked) == {"y"}
    assert len(asked) == 5
