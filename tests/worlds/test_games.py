"""Preference games: opposite preferences sum to 1, kinds are what they say, annotators follow the matrix."""

from __future__ import annotations

import pytest
import torch

from rewardkit.types import Sample
from rewardkit.worlds.tables.games import Games


@pytest.mark.parametrize("kind", ["intransitive", "transitive", "cycle"])
def test_opposite_preferences_sum_to_one(kind) -> None:
    game = Games(3, 5, kind=kind, seed=0).preference
    torch.testing.assert_close(game + game.mT, torch.ones_like(game))


def test_only_in_transitive_games_one_action_beats_every_other() -> None:
    def winners(kind):
        return ((Games(20, 5, kind=kind, seed=0).preference > 0.5).sum(-1) == 4).any(-1)

    assert bool(winners("transitive").all())
    assert not bool(winners("intransitive").any() | winners("cycle").any())


def test_the_reference_draws_with_itself_and_annotators_follow_the_matrix() -> None:
    world = Games(1, 3, seed=0)
    assert world.measure(world.log_reference)["gold"] == pytest.approx(0.5)
    first, second = [Sample("x0", "a0")] * 4000, [Sample("x0", "a1")] * 4000
    share = sum(j.rank == (0, 1) for j in world.compare(first, second, seed=0)) / 4000
    p = float(world.preference[0, 0, 1])
    assert share == pytest.approx(p, abs=4 * (p * (1 - p) / 4000) ** 0.5)


def test_an_even_cycle_is_refused() -> None:
    with pytest.raises(ValueError, match="odd"):
        Games(1, 4, kind="cycle")


def test_two_actions_cannot_be_intransitive() -> None:
    with pytest.raises(ValueError, match="at least 3 actions"):
        Games(1, 2)
