"""Preference games: the gap against brute force, and mirror descent against what theory says of it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from rewardkit.evals.games import duality_gap, mirror_descent, win_rates
from rewardkit.worlds.tables.games import Games


def averages(game, start, rate, steps, *, optimistic):
    """The average of the policies played, after each step."""
    played = itertools.islice(mirror_descent(game, start, rate, optimistic=optimistic), steps)
    return torch.stack([p.exp() for p in played]).cumsum(0) / torch.arange(1, steps + 1)[:, None]


def test_the_gap_is_what_the_best_mixed_answers_win_and_leave() -> None:
    game = Games(1, 3, seed=0).preference[0]
    policy = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    ticks = torch.linspace(0, 1, 41, dtype=torch.float64)
    mixed = [torch.stack([a, b, 1 - a - b]) for a in ticks for b in ticks if a + b <= 1]
    wins = [float(q @ game @ policy) for q in mixed]
    left = [float(policy @ game @ q) for q in mixed]
    assert float(duality_gap(game, policy)) == pytest.approx(max(wins) - min(left), abs=1e-12)


def test_opposite_preferences_must_agree() -> None:
    with pytest.raises(ValueError, match="must be 1"):
        duality_gap(torch.full((2, 2), 0.9), torch.tensor([0.5, 0.5]))


def test_optimistic_self_play_closes_the_gap_as_one_over_t() -> None:
    world = Games(1, 6, seed=1)
    found = averages(world.preference[0], world.log_reference[0], 0.5, 1024, optimistic=True)
    gaps = [float(duality_gap(world.preference[0], found[t - 1])) for t in (64, 256, 1024)]
    slope = np.polyfit(np.log([64, 256, 1024]), np.log(gaps), 1)[0]
    assert -1.3 < slope < -0.8


def test_plain_self_play_cycles_where_optimistic_settles() -> None:
    world = Games(1, 3, kind="cycle", seed=0)
    for optimistic in (False, True):
        played = itertools.islice(
            mirror_descent(world.preference[0], world.log_reference[0], 1.0, optimistic=optimistic), 500
        )
        gaps = [float(duality_gap(world.preference[0], p.exp())) for p in played][300:]
        # The best answer to a pure action wins all: the plain iterates come ever nearer to one after the other.
        assert max(gaps) < 0.01 if optimistic else min(gaps) > 0.3 and max(gaps) > 0.95


def test_the_same_payoff_in_both_updates_is_plain_mirror_descent() -> None:
    world, rate = Games(1, 5, seed=2), 0.7
    game, base = world.preference[0], world.log_reference[0]
    plain = mirror_descent(game, base, rate, optimistic=False)
    stale = rate * win_rates(game, next(plain).exp())
    for wanted in itertools.islice(plain, 5):
        played = (base + stale).log_softmax(-1)
        base = (base + stale).log_softmax(-1)  # the trap: not the payoff of what was just played
        torch.testing.assert_close(played, wanted)
        stale = rate * win_rates(game, played.exp())


def test_a_game_that_is_won_outright_is_found() -> None:
    game = torch.tensor([[0.5, 0.9], [0.1, 0.5]])
    found = averages(game, torch.zeros(2), 1.0, 200, optimistic=True)
    assert float(duality_gap(game, found[-1])) < 0.05
