"""World tables: exact figures of bandits, types of sequences."""

from __future__ import annotations

import itertools

import torch

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
