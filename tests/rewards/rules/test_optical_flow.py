"""Flow alignment: by hand, and the trap that the move term is there for."""

from __future__ import annotations

import math

import pytest
import torch

from rewardkit.rewards.rules.optical_flow import OpticalFlowAlignment, distances
from rewardkit.types import Rollout, Sample


def field(dx: float, dy: float = 0.0) -> torch.Tensor:
    """A patch of 4 of 16 pixels moves."""
    found = torch.zeros(2, 4, 4)
    found[0, :2, :2], found[1, :2, :2] = dx, dy
    return found


def test_distances_are_those_written_out() -> None:
    found, asked = field(0.1)[None], field(0.0, 0.2)[None]
    parts = distances(found, asked)
    apart = math.hypot(0.1, 0.2)
    assert float(parts["magnitude"]) == pytest.approx((4 * (apart + 1e-6) ** 0.4 + 12 * 1e-6**0.4) / 16, rel=1e-4)
    assert float(parts["direction"]) == pytest.approx(0.5)
    assert float(parts["move"]) == pytest.approx(0.01 + 0.5 * 0.05 - 0.025)
    moving = distances(found, asked, over="moving")
    assert float(moving["magnitude"]) == pytest.approx((apart + 1e-6) ** 0.4, rel=1e-4)
    assert float(moving["move"]) == pytest.approx(0.01 + 0.1 - 0.1)


def score(found: torch.Tensor, asked: torch.Tensor, **options: object) -> float:
    reward = OpticalFlowAlignment(lambda s: (s.output, asked), levels=None, **options)  # type: ignore[arg-type]
    outcome = reward(Rollout([Sample("p", found)], torch.ones(1, 1))).outcome
    assert outcome is not None
    return float(outcome[0])


def test_the_true_edit_scores_1_and_worse_ones_less() -> None:
    right = field(2.0)
    scores = [score(f, right, over="moving") for f in (right, field(1.5), field(0.0), field(-2.0))]
    assert scores[0] == pytest.approx(1.0, abs=1e-6)
    assert scores == sorted(scores, reverse=True)


def test_the_move_term_prices_an_unchanged_picture() -> None:
    """Only what stays still pays it."""
    right = field(2.0)
    without, still = (0.7, 0.2, 0.0), field(0.0)
    assert score(still, right, over="moving") < score(still, right, over="moving", weights=without)
    assert score(field(-2.0), right, over="moving") == score(field(-2.0), right, over="moving", weights=without)


def test_scores_are_rounded_to_levels() -> None:
    reward = OpticalFlowAlignment(lambda s: (s.output, field(2.0)), over="moving")
    rows = Rollout([Sample("p", field(x)) for x in (2.0, 1.3, 0.0, -1.0, -2.0)], torch.ones(5, 1))
    outcome = reward(rows).outcome
    assert outcome is not None
    assert all(round(float(x) * 5, 4) % 1 == 0 for x in outcome)
    assert len(set(outcome.tolist())) > 2
