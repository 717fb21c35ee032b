"""A judge is a policy with a template and a parser: live, averaged, and its failures are errors."""

from __future__ import annotations

import pytest
import torch

from rewardkit.policies.table import TablePolicy
from rewardkit.rewards.learned.judge import Judge
from rewardkit.types import ERROR, OK, Rollout, Sample


def digits(said, k):
    return [float(c) for c in said] if len(said) == k and said.isdigit() else None


def together(shown):
    return "+".join(s.output for s in shown)


def rows(outputs, group):
    return Rollout([Sample("x", o) for o in outputs], torch.ones(len(outputs), 1), torch.tensor(group))


def test_outputs_of_a_group_are_shown_together_in_parts():
    policy = TablePolicy(["a+b", "c", "d"], ["12", "5"], logits=torch.tensor([[[9e9, 0]], [[0, 9e9]], [[0, 9e9]]]))
    judge = Judge(policy, together, digits, size=2)
    assert judge.scope == "group"
    found = judge(rows(["a", "d", "b", "c"], [0, 1, 0, 0]))
    assert found.outcome.tolist() == [1.0, 5.0, 2.0, 5.0]
    assert [s.prompt for s in found.made_by.samples] == ["a+b", "c", "d"]


def test_what_cannot_be_read_is_the_judges_failure():
    policy = TablePolicy(["a", "b"], ["7", "?"], logits=torch.tensor([[[9e9, 0]], [[0, 9e9]]]))
    found = Judge(policy, together, digits, size=1)(rows(["a", "b"], [0, 0]))
    assert found.status.tolist() == [OK, ERROR]
    assert found.outcome.tolist() == [7.0, 0.0]
    assert "could be read" in found.why[1]


def test_grades_are_means_over_the_verdicts_that_can_be_read():
    policy = TablePolicy(["a"], ["2", "4", "?"])
    judge = Judge(policy, together, digits, size=1, n=600)
    assert judge(rows(["a"], [0])).outcome.item() == pytest.approx(3.0, abs=4 / 400**0.5)


def test_it_follows_its_policy_and_a_kept_view_does_not():
    policy = TablePolicy(["a"], ["1", "9"], logits=torch.tensor([[[9e9, 0.0]]]))
    live, frozen = Judge(policy, together, digits), Judge(policy.keep("then"), together, digits)
    with torch.no_grad():
        policy.logits.copy_(torch.tensor([[[0.0, 9e9]]]))
    assert live(rows(["a"], [0])).outcome.item() == 9.0
    assert frozen(rows(["a"], [0])).outcome.item() == 1.0


def test_draws_depend_on_the_turn_and_nothing_else():
    judge = Judge(TablePolicy(["a"], list("0123456789")), together, digits, n=5)
    one, again, other = (judge(rows(["a"], [0]), {"step": s}).outcome.item() for s in (1, 1, 2))
    assert one == again
    assert one != other
