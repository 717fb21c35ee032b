"""EPIC: blind to level, scale and shaping, and to nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rewardkit.measures.epic import epic_distance, pearson_distance, shaped


def steps(n: int = 60, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    chance = torch.Generator().manual_seed(seed)
    before, actions = (torch.randn(n, 2, generator=chance, dtype=torch.float64) for _ in range(2))
    return before, actions, before + 0.5 * actions


def plain(before: Tensor, actions: Tensor, after: Tensor) -> Tensor:
    return -after.square().sum(-1) + 0.3 * actions[:, 0]


def test_shaping_scale_and_level_leave_it_at_zero_and_correlation_alone_does_not() -> None:
    def other(before: Tensor, actions: Tensor, after: Tensor) -> Tensor:
        return 2 * plain(before, actions, after) + 0.9 * after.sin().sum(-1) - before.sin().sum(-1) - 4

    assert epic_distance(plain, other, steps(), gamma=0.9) < 1e-6
    assert pearson_distance(plain(*steps()), other(*steps())) > 0.02


def test_opposite_rewards_are_at_one_and_unlike_ones_between() -> None:
    assert epic_distance(plain, lambda *x: -plain(*x), steps()) == pytest.approx(1.0)
    found = epic_distance(plain, lambda b, a, c: c[:, 0], steps(2000), cover=steps(64, seed=1))
    assert 0.5 < found < 0.9


def test_for_rewards_of_the_state_reached_alone_it_is_the_plain_distance() -> None:
    one, two = (lambda b, a, c: c[:, 0].exp()), (lambda b, a, c: c.sum(-1))
    own = steps(200)
    assert epic_distance(one, two, own) == pytest.approx(pearson_distance(one(*own), two(*own)), abs=1e-9)


def test_canonical_shaping_by_a_loop() -> None:
    own, cover, gamma = steps(3), steps(4, seed=1), 0.7
    want = []
    for s, a, t in zip(*own, strict=True):
        total = float(plain(s[None], a[None], t[None]))
        for start, act, reached in zip(*cover, strict=True):
            ahead = plain(t[None], act[None], reached[None])
            here = plain(s[None], act[None], reached[None])
            total += float(gamma * ahead - here) / 4
            for _, act2, reached2 in zip(*cover, strict=True):
                total -= gamma * float(plain(start[None], act2[None], reached2[None])) / 16
        want.append(total)
    torch.testing.assert_close(shaped(plain, own, cover, gamma), torch.tensor(want, dtype=torch.float64))


def test_a_constant_has_no_distance() -> None:
    with pytest.raises(ValueError, match="constant"):
        pearson_distance(torch.ones(3), torch.arange(3.0))
