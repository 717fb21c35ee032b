"""PACS: identities of its gradient, class weights, division into micro-batches."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from rewardkit import testing
from rewardkit.credit.base import apply
from rewardkit.credit.group import rloo
from rewardkit.credit.returns import total
from rewardkit.objectives.base import Loss, objective
from rewardkit.objectives.pacs import pacs
from rewardkit.objectives.policy import reinforce
from rewardkit.policies.table import TablePolicy
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Rollout, Sample, Scores


def batch(seed: int, outcomes: list[float], groups: list[int]) -> tuple[TablePolicy, Rollout]:
    """Rows on a random table policy that has moved since it sampled."""
    rng = torch.Generator().manual_seed(seed)
    prompts, words = ["x", "y"], ["a", "b", "c"]
    policy = TablePolicy(prompts, words, logits=torch.randn(2, 1, 3, generator=rng, dtype=torch.float64))
    rows = [Sample(prompts[g % 2], words[int(torch.randint(3, (), generator=rng))]) for g in groups]
    rollout = policy.encode(rows)
    rollout.group = torch.tensor(groups)
    with torch.no_grad():
        old = policy.evaluate(rollout)["logps"]
    return policy, rollout.with_tensors(old_logps=old, outcome=torch.tensor(outcomes))


def moved(rollout: Rollout, seed: int) -> Rollout:
    rng = torch.Generator().manual_seed(seed)
    shift = torch.randn(rollout.mask.shape, generator=rng, dtype=torch.float64)
    return rollout.with_tensors(old_logps=rollout["old_logps"] + shift)


@pytest.mark.parametrize("options", [{}, {"balanced": False, "beta": 2.0}])
def test_it_passes_every_oracle(options: dict[str, Any]) -> None:
    ran = testing.check(partial(pacs, **options), testing.language_batch)
    assert {"pure", "padding", "row_order", "nan_outside", "all_masked", "precision", "micro_batches"} <= set(ran)


def test_at_the_policy_that_sampled_the_gradient_is_that_of_rloo() -> None:
    policy, rollout = batch(0, [1, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1])
    learner = Learner(policy, lr=0.1)
    ours = learner.grads(Term(rollout, partial(pacs, beta=1.5, balanced=False)))
    scored = apply(rloo, rollout, Scores(rollout["outcome"]))
    theirs = learner.grads(Term(scored, reinforce))
    for name, g in ours.items():
        assert float(g.abs().max()) > 1e-3
        torch.testing.assert_close(g, 1.5 * theirs[name], atol=1e-6, rtol=0)


def test_a_value_worked_out_by_hand() -> None:
    """Two rows, psi = +-(1 - 0) = +-1: softplus(-1) for the right one that rose, softplus(-1) for the wrong one."""
    logps, old = torch.tensor([[0.0, 1.0], [0.5, -0.5]]), torch.zeros(2, 2)
    found = pacs(logps, old, torch.tensor([1.0, 0.0]), torch.tensor([0, 0]), torch.ones(2, 2))
    want = float(torch.nn.functional.softplus(torch.tensor(-1.0)))
    assert found.value.tolist() == pytest.approx([want, want])
    assert found.metrics["psi"].tolist() == [1.0, -1.0]
    assert found.metrics["accuracy"].tolist() == [1.0, 1.0]


def test_class_weights_are_scikit_learn_s_balanced() -> None:
    from sklearn.utils.class_weight import compute_sample_weight

    labels = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0]
    zero = torch.zeros(7, 1)
    found = pacs(zero, zero, torch.tensor(labels), torch.zeros(7, dtype=torch.long), torch.ones(7, 1)).value
    np.testing.assert_allclose(found / np.log(2), compute_sample_weight("balanced", labels), rtol=1e-6)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_all_equal_labels_give_finite_gradients_and_their_sum_moves_nothing_at_first(label: float) -> None:
    policy, rollout = batch(1, [label] * 4, [0] * 4)
    first = Learner(policy, lr=0.1).grads(Term(rollout, pacs))
    later = Learner(policy, lr=0.1).grads(Term(moved(rollout, 2), pacs))
    assert all(float(g.abs().max()) < 1e-7 for g in first.values())
    assert all(torch.isfinite(g).all() for g in later.values())
    assert any(float(g.abs().max()) > 1e-4 for g in later.values())


@pytest.mark.parametrize("size", [1, 2, 4])
def test_micro_batches_never_divide_a_group_and_change_nothing(size: int) -> None:
    policy, rollout = batch(3, [1, 0, 1, 0, 0, 1, 1], [0, 1, 0, 1, 2, 2, 2])
    rollout = moved(rollout, 4)
    whole = Learner(policy, lr=0.1).grads(Term(rollout, pacs))
    parts = Learner(policy, lr=0.1, micro_batch=size).grads(Term(rollout, pacs))
    for name, g in whole.items():
        torch.testing.assert_close(parts[name], g)


@objective(per="sample", scope="batch")
def pacs_in_two_passes(logps: Any, old_logps: Any, outcome: Any, group: Any, mask: Any) -> Loss:
    """The same loss, declared so that a learner may divide groups and takes two passes."""
    return pacs(logps, old_logps, outcome, group, mask)


def test_two_passes_over_divided_groups_give_the_whole_gradient() -> None:
    policy, rollout = batch(5, [1, 0, 1, 0, 0, 1, 1], [0, 1, 0, 1, 2, 2, 2])
    rollout = moved(rollout, 6)
    whole = Learner(policy, lr=0.1).grads(Term(rollout, pacs))
    twice = Learner(policy, lr=0.1, micro_batch=2).grads(Term(rollout, pacs_in_two_passes))
    for name, g in whole.items():
        torch.testing.assert_close(twice[name], g)


def test_rows_that_train_nothing_are_in_no_baseline() -> None:
    _, rollout = batch(7, [1, 0, 1], [0, 0, 0])
    logps = rollout["old_logps"] + torch.tensor([[0.5], [-0.5], [9.0]])
    mask = torch.tensor([[1.0], [1.0], [0.0]])
    three = pacs(logps, rollout["old_logps"], rollout["outcome"], rollout.group, mask)
    two = pacs(*(x[:2] for x in (logps, rollout["old_logps"], rollout["outcome"], rollout.group, mask)))
    torch.testing.assert_close(three.value[:2], two.value)


def test_total_leaves_the_outcome_on_the_rollout() -> None:
    _, rollout = batch(8, [0, 0, 0], [0, 0, 0])
    assert apply(total, rollout, Scores(torch.tensor([1.0, 0.0, 1.0])))["outcome"].tolist() == [1.0, 0.0, 1.0]
