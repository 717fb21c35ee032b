"""Self-play: both fits of a round are the exact steps of mirror descent, and only the optimistic one looks ahead."""

from __future__ import annotations

import pytest

from rewardkit.evals.games import mirror_descent
from rewardkit.loops.self_play import self_play
from rewardkit.training.learner import Learner
from rewardkit.worlds.tables.games import Games


@pytest.mark.parametrize("optimistic", [True, False])
def test_with_many_pairs_the_rounds_follow_exact_mirror_descent(optimistic: bool) -> None:
    world, rate = Games(1, 3, seed=0, skew=0.5), 1.0
    learner = Learner(world.policy(), lr=0.1)
    run = self_play(
        learner, lambda policy, number: world.pairs(policy, 400, seed=number), rate=rate, rounds=2,
        optimistic=optimistic, epochs=25, batch=400,
    )  # fmt: skip
    found = [world.log_probs(learner.model)[0] for _ in run]
    exact = mirror_descent(world.preference[0], world.log_reference[0], rate, optimistic=optimistic)
    next(exact)
    for got, wanted in zip(found, exact, strict=False):
        assert float((got.exp() - wanted.exp()).abs().max()) < 0.08
