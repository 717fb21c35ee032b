"""The distribution that one step draws from."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rewardkit.policies.language.sampling import Sampling, draw, truncate

LOGPS = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, [0, 1, 2, 3]),
        ({"top_k": 2}, [0, 1]),
        ({"top_k": 9}, [0, 1, 2, 3]),
        ({"top_p": 0.5}, [0]),
        ({"top_p": 0.51}, [0, 1]),
        ({"top_p": 1e-9}, [0]),
        ({"min_p": 0.2}, [0, 1, 2]),
        ({"min_p": 1.0}, [0]),
        # top_p sees what top_k left, renormalised: 0.5 / 0.8 = 0.625 reaches 0.6
        ({"top_k": 2, "top_p": 0.6}, [0]),
    ],
)
def test_truncation_keeps(options: dict[str, Any], kept: list[int]) -> None:
    assert truncate(LOGPS, Sampling(**options))[0].isfinite().nonzero().flatten().tolist() == kept


@pytest.mark.parametrize("options", [{}, {"top_p": 0.9}, {"temperature": 0.5}, {"top_k": 2}])
def test_draws_have_the_stated_distribution(options: dict[str, Any]) -> None:
    sampling = Sampling(**options)
    n = 20_000
    tokens, _ = draw(LOGPS.expand(n, -1), (torch.arange(n) + 0.5) / n, sampling)
    expected = truncate((LOGPS / sampling.temperature).log_softmax(-1), sampling).softmax(-1)[0]
    assert torch.allclose(tokens.bincount(minlength=4) / n, expected, atol=2e-4)


def test_the_ends_of_the_interval_never_draw_an_excluded_token() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]]).expand(2, -1)
    tokens, _ = draw(logits, torch.tensor([0.0, 1 - 2**-24]), Sampling())
    assert tokens.tolist() == [1, 2]


def test_logps_are_those_of_the_untruncated_distribution_at_the_temperature() -> None:
    """R30, R31: truncation does not change what is recorded, temperature does."""
    tokens, logps = draw(LOGPS, torch.tensor([0.1]), Sampling(top_k=1, temperature=2.0))
    assert tokens.tolist() == [0]
    assert torch.allclose(logps, (LOGPS / 2).log_softmax(-1)[:, 0])


def test_greedy_takes_the_most_likely_token() -> None:
    assert draw(LOGPS, torch.tensor([0.99]), Sampling(greedy=True))[0].tolist() == [0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("options", [{}, {"greedy": True}, {"top_p": 0.9}])
def test_logits_that_are_not_finite_draw_nothing(bad: float, options: dict[str, Any]) -> None:
    logits = torch.zeros(3, 4)
    logits[1, 2] = bad
    with pytest.raises(FloatingPointError, match="not finite in 1 of 3 rows"):
        draw(logits, torch.full((3,), 0.5), Sampling(**options))


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 0},
        {"temperature": 0.0},
        {"temperature": float("inf")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"min_p": 1.5},
        {"stop": "no tuple"},
        {"stop": ("",)},
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"Sampling.{next(iter(options))}"):
        Sampling(**options)
