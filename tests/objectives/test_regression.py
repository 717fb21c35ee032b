"""The regression of a difference of log-ratios: by hand, beside ipo, and as a step of mirror descent."""

from __future__ import annotations

from functools import partial

import torch

from rewardkit.data.rows import attach, comparison_rows
from rewardkit.evals.games import mirror_descent
from rewardkit.needs import Column
from rewardkit.objectives.preference import ipo
from rewardkit.objectives.regression import difference_regression
from rewardkit.training.fit import fit
from rewardkit.training.learner import Learner
from rewardkit.training.reference import attach_reference
from rewardkit.training.term import Term
from rewardkit.types import Judgement, Sample
from rewardkit.worlds.tables.games import Games

LOGPS = torch.tensor([[-1.0, -2.0], [-3.0, -1.0]])
REF = torch.tensor([[-2.0, -2.5], [-2.0, -1.0]])
MASK = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
PAIRS = torch.tensor([[0, 1]])


def test_by_hand() -> None:
    loss = difference_regression(LOGPS, REF, MASK, PAIRS, target=1.0, weight=torch.tensor([2.0]))
    assert loss.value.item() == 2.0 * (1.5 - (-1.0) - 1.0) ** 2
    mean = difference_regression(LOGPS, REF, MASK, PAIRS, target=1.0, average=True)
    assert mean.value.item() == (0.75 - (-1.0) - 1.0) ** 2
    assert loss.metrics["margin"].item() == 2.5
    assert loss.metrics["accuracy"].item() == 1.0


def test_ipo_is_one_target_of_it() -> None:
    for average in (True, False):
        ours = difference_regression(LOGPS, REF, MASK, PAIRS, target=1 / (2 * 0.3), average=average)
        theirs = ipo(LOGPS, REF, MASK, PAIRS, beta=0.3, average=average)
        torch.testing.assert_close(ours.value, theirs.value)


def test_a_column_can_be_the_target() -> None:
    policy = Games(1, 3).policy()
    rows = comparison_rows([Judgement((Sample("x0", "a0"), Sample("x0", "a1")), rank=(0, 1))])
    data = attach_reference(attach(policy.encode(rows.samples), rows), policy.at("start"))
    data = data.with_tensors(score=torch.tensor([3.0, 1.0], dtype=torch.float64))
    term = Term(data, partial(difference_regression, target=Column("score", of="difference")))
    assert Learner(policy).step(term)["loss"] == 4.0  # at the reference the gap is 0


def test_on_labelled_pairs_of_the_policy_its_minimiser_is_a_step_of_mirror_descent() -> None:
    """Every pair in proportion to how often the policy draws it and the annotator answers so: no sampling error."""
    world, rate = Games(1, 4, seed=3), 1.3
    policy, game, p = world.policy(), world.preference[0], world.log_reference[0].exp()
    judged, weights = [], []
    for i in range(4):
        for j in range(4):
            if i != j:
                judged.append(Judgement((Sample("x0", f"a{i}"), Sample("x0", f"a{j}")), rank=(0, 1)))
                weights.append(float(p[i] * p[j] * game[i, j]))
    rows = comparison_rows(judged)
    data = attach_reference(attach(policy.encode(rows.samples), rows), policy.at("start"))
    data = data.with_tensors(often=torch.tensor(weights, dtype=torch.float64).repeat_interleave(2))
    objective = partial(difference_regression, target=rate / 2, weight=Column("often", of="better"))
    for _ in fit(Learner(policy, lr=0.2, schedule="cosine"), data, objective, epochs=100, batch=len(judged)):
        pass
    steps = mirror_descent(game, world.log_reference[0], rate, optimistic=False)
    next(steps)
    torch.testing.assert_close(world.log_probs(policy)[0], next(steps), atol=0.01, rtol=0)
