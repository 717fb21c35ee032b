"""The closed forms against brute force."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from rewardkit.evals.closed_forms import best_of_n_distribution, closed_form_checks, kl, tilted, tilted_to

P = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64).log()
R = torch.tensor([0.2, -1.0, 1.5, 1.5], dtype=torch.float64)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_best_of_n_is_what_listing_every_draw_gives_ties_shared(n):
    brute = torch.zeros(4, dtype=torch.float64)
    for draws in itertools.product(range(4), repeat=n):
        p = math.prod(float(P[d].exp()) for d in draws)
        top = max(float(R[d]) for d in draws)
        winners = [d for d in draws if float(R[d]) == top]
        for d in winners:
            brute[d] += p / len(winners)
    torch.testing.assert_close(best_of_n_distribution(P, R, n).exp(), brute)


def test_best_of_very_many_is_the_source_given_the_best_reward():
    exact = best_of_n_distribution(P, R, 1e6).exp()
    torch.testing.assert_close(exact[2:], torch.tensor([0.75, 0.25], dtype=torch.float64))


def test_the_tilt_maximises_reward_minus_kl():
    best = tilted(P, R, 0.7)

    def value(log_q):
        return float((log_q.exp() * R).sum() - 0.7 * kl(log_q, P))

    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        other = (best + 0.2 * torch.randn(4, generator=generator, dtype=torch.float64)).log_softmax(-1)
        assert value(other) < value(best)


@pytest.mark.parametrize("budget", [0.0, 0.1, 0.5])
def test_the_tilt_of_a_budget_spends_it(budget):
    assert float(kl(tilted_to(P, R, budget), P)) == pytest.approx(budget, abs=1e-9)


def test_a_budget_beyond_reach_gives_the_best_outcomes():
    torch.testing.assert_close(
        tilted_to(P, R, 50.0).exp(), torch.tensor([0, 0, 0.75, 0.25], dtype=torch.float64), atol=1e-12, rtol=0
    )


@pytest.mark.parametrize("impossible", [-5.0, 0.2, 9.0])
def test_what_the_source_cannot_give_changes_nothing(impossible):
    p = torch.cat([P, torch.tensor([-math.inf], dtype=torch.float64)])
    r = torch.cat([R, torch.tensor([impossible], dtype=torch.float64)])
    for found, expected in (
        (best_of_n_distribution(p, r, 3), best_of_n_distribution(P, R, 3)),
        (tilted_to(p, r, 0.3), tilted_to(P, R, 0.3)),
        (tilted_to(p, r, 50.0), tilted_to(P, R, 50.0)),
        (tilted(p, r, 0.7), tilted(P, R, 0.7)),
    ):
        torch.testing.assert_close(found[:4], expected)
        assert found[4] == -math.inf
    assert closed_form_checks(p, r, 3) == pytest.approx(closed_form_checks(P, R, 3))


def test_a_probability_that_rounds_to_zero_gives_no_nan():
    p = torch.tensor([0.0, -800.0], dtype=torch.float64).log_softmax(-1)
    found = best_of_n_distribution(p, torch.tensor([0.0, 1.0], dtype=torch.float64), 4)
    assert found.exp().tolist() == [1.0, 0.0]


def test_a_rare_outcome_between_common_ones_keeps_its_digits():
    p = torch.tensor([0.5, 1e-20, 0.5], dtype=torch.float64).log()
    found = best_of_n_distribution(p, torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64), 3)
    assert float(found[1].exp()) == pytest.approx(3 * 0.5**2 * 1e-20, rel=1e-9, abs=0)


def test_kl_of_a_broken_distribution_is_not_zero():
    assert math.isnan(float(kl(torch.full((2,), math.nan), P[:2])))
    assert float(kl(torch.tensor([0.0, -math.inf]), torch.tensor([0.5, 0.5]).log())) == pytest.approx(math.log(2))


@pytest.mark.parametrize("n", [2, 8, 100])
def test_best_of_n_never_beats_the_optimum_of_its_budget(n):
    found = closed_form_checks(P, R, n)
    assert found["kl_best_of_n"] <= found["kl_bound"]
    assert found["reward_best_of_n"] <= found["reward_optimal"] + 1e-12
