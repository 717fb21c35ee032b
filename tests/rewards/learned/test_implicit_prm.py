"""The process reward that learns in the loop."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch

from rewardkit.credit.base import apply, per_part
from rewardkit.credit.group import rloo
from rewardkit.credit.process import dense_rloo
from rewardkit.loops.online import online
from rewardkit.loops.prompts import PromptSet
from rewardkit.objectives.outcome import outcome_ce_log_ratio
from rewardkit.objectives.policy import clipped
from rewardkit.policies.table import TablePolicy
from rewardkit.rewards.learned.implicit_prm import ImplicitPRM
from rewardkit.rewards.rules.text import ExactMatch
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Sample, Scores


def both(lr: float) -> tuple[Learner, Learner, ImplicitPRM]:
    policy = TablePolicy(["x"], ["a", "b"])
    phi = Learner(copy.deepcopy(policy), lr=lr)
    objective = partial(outcome_ce_log_ratio, beta=0.5)
    prm = ImplicitPRM(
        phi.model, policy.at("start"), fit=lambda data: phi.step(Term(data, objective)), label="exact_match", beta=0.5
    )
    return Learner(policy, lr=lr), phi, prm


def test_two_learners_go_together_and_apart() -> None:
    """The process reward learns which token is right, from outcomes; the policy's loss does not reach it."""
    learner, phi, prm = both(0.1)
    prompts = PromptSet([Sample("x", hidden={"answer": "b"})])
    credit = per_part(rloo, by={"implicit_prm": dense_rloo})
    turns = online(learner, prompts, ExactMatch() + prm, credit, clipped, reference=None, steps=40, batch=1, n=8)
    every = list(turns)
    assert float(every[0].scores.parts["implicit_prm"].dense["token"].abs().max()) == 0  # phi begins as the reference
    assert every[-1].metrics["reward/exact_match"] > 0.8
    assert len(prm.seen) == 40
    said = learner.model.encode([Sample("x", "a"), Sample("x", "b")])
    bad, good = prm(said).dense["token"][:, 0].tolist()
    assert bad < 0 < good
    assert not torch.equal(*(next(m.module.parameters()) for m in (phi.model, learner.model)))


def test_at_the_reference_the_advantage_is_that_of_rloo() -> None:
    learner, _, prm = both(0.1)
    rollout = learner.model.sample(["x"], 6, seed=0)
    gold = Scores(torch.tensor([float(s.output == "b") for s in rollout.samples]))
    scores = Scores.combine({"gold": gold, "implicit_prm": prm(rollout)}, {"gold": 1.0, "implicit_prm": 1.0})
    found = apply(per_part(rloo, by={"implicit_prm": dense_rloo}), rollout, scores)
    torch.testing.assert_close(found["advantages"], apply(rloo, rollout, gold)["advantages"])


def test_without_the_outcome_it_says_what_it_needs() -> None:
    learner, _, prm = both(0.1)
    rollout = learner.model.sample(["x"], 2, seed=0)
    with pytest.raises(ValueError, match="'exact_match'"):
        prm.update(rollout, Scores(torch.zeros(2)), step=1)
