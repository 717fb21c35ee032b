"""World tables: exact figures of bandits, types of sequences."""

from __future__ import annotations

import itertools
from functools import partial

import pytest
import torch

from rewardkit.credit.base import chain
from rewardkit.credit.group import rloo
from rewardkit.credit.kl import kl_penalty
from rewardkit.data.rows import attach, comparison_rows
from rewardkit.evals.closed_forms import kl
from rewardkit.loops.online import online
from rewardkit.loops.prompts import PromptSet
from rewardkit.needs import Column
from rewardkit.objectives.policy import reinforce
from rewardkit.objectives.preference import dpo
from rewardkit.training.fit import fit
from rewardkit.training.learner import Learner
from rewardkit.training.reference import attach_reference
from rewardkit.worlds.tables import Bandits, types


def test_measure_agrees_with_enumeration_and_gold():
    world = Bandits(3, 4, seed=1)
    policy = world.policy()
    total = 0.0
    for prompt in world.prompts:
        samples, p = policy.enumerate(prompt)
        total += float((p.detach() * world.gold(policy.encode(samples)).outcome).sum())
    found = world.measure(policy)
    assert abs(found["gold"] - total / 3) < 1e-9
    assert abs(found["kl"]) < 1e-12


def test_the_regularised_optimum_beats_best_of_n_at_its_kl():
    world = Bandits(2, 6, seed=0)
    best = world.measure(world.best_of(4))
    betas = torch.logspace(-2, 2, 400)
    points = [world.measure(world.regularised(float(b))["log_probs"]) for b in betas]
    within = [p["gold"] for p in points if p["kl"] <= best["kl"] + 1e-3]
    assert max(within) >= best["gold"] - 0.02


def test_comparisons_carry_bradley_terry_probabilities():
    world = Bandits(1, 3, seed=0)
    judgement = world.comparisons()[0]
    gap = world.gold_table[0, 0] - world.gold_table[0, 1]
    assert abs(judgement.p[0] - float(torch.sigmoid(gap))) < 1e-12
    assert {j.rank for j in world.comparisons(noisy=False)} <= {(0, 1), (1, 0)}


def test_types_gather_every_sequence():
    log_p = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64).log()
    counts, log_types = types(log_p, 4)
    brute = {}
    for sequence in itertools.product(range(3), repeat=4):
        key = tuple(float(sequence.count(k)) for k in range(3))
        brute[key] = brute.get(key, 0.0) + float(torch.stack([log_p[i] for i in sequence]).sum().exp())
    assert len(counts) == len(brute) == 15
    for row, value in zip(counts.tolist(), log_types.exp().tolist(), strict=True):
        assert abs(brute[tuple(row)] - value) < 1e-12


def test_annotators_follow_bradley_terry_on_gold():
    world = Bandits(1, 2, seed=0)
    a, b = (world.policy().enumerate("x0")[0][i] for i in (0, 1))
    judged = world.compare([a] * 4000, [b] * 4000, seed=0)
    share = sum(j.rank == (0, 1) for j in judged) / len(judged)
    expected = float(torch.sigmoid(world.gold_table[0, 0] - world.gold_table[0, 1]))
    assert share == pytest.approx(expected, abs=4 * (expected * (1 - expected) / 4000) ** 0.5)


BETA, MARKS = 0.5, (1, 20, 60, 180)


def _by_policy_gradient(world, policy):
    credit = chain(partial(kl_penalty, coef=BETA), rloo)
    return online(
        Learner(policy, lr=0.05), PromptSet(world.prompts), world.gold, credit, reinforce, reference="start", n=64,
        batch=len(world.prompts), steps=MARKS[-1], seed=0,
    )  # fmt: skip


def _by_dpo(world, policy):
    rows = comparison_rows(world.comparisons())
    data = attach_reference(attach(policy.encode(rows.samples), rows), policy.at("start"))
    data = data.with_tensors(doubt=1 - data["p"].double())
    objective = partial(dpo, beta=BETA, smoothing=Column("doubt", of="better"))
    return fit(Learner(policy, lr=0.05), data, objective, epochs=MARKS[-1], batch=len(rows))


@pytest.mark.parametrize("train", [_by_policy_gradient, _by_dpo])
def test_training_on_gold_approaches_the_regularised_optimum_as_steps_grow(train):
    world = Bandits(2, 4, seed=3)
    policy, best = world.policy(), world.regularised(BETA)["log_probs"]
    apart = [float(kl(world.log_probs(policy), best).mean())]
    apart += [float(kl(world.log_probs(policy), best).mean()) for t in train(world, policy) if t.step in MARKS]
    assert all(later < earlier for earlier, later in itertools.pairwise(apart))
    assert apart[-1] < 0.01 * apart[0]
