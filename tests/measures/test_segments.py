"""Pooling positions into segments, against loops."""

from __future__ import annotations

import pytest
import torch

from rewardkit.measures.segments import Segments

SEGMENT = torch.tensor([[0, 0, -1, 1, 1, 2], [-1, 1, 1, -1, -1, -1]])
MASK = torch.tensor([[1.0, 0.5, 1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]])
X = torch.arange(12.0).reshape(2, 6) + 1


def test_only_live_positions_are_in_a_segment() -> None:
    parts = Segments(SEGMENT, MASK)
    assert parts.has.tolist() == [[True, True], [False, True]]  # segment 2 has no position of weight
    assert parts.sums(X).tolist() == [[3.0, 5.0], [0.0, 17.0]]
    assert parts.means(X).tolist() == [[1.5, 5.0], [0.0, 8.5]]
    assert parts.firsts(X).tolist() == [[1.0, 5.0], [0.0, 8.0]]
    assert parts.lasts(X).tolist() == [[2.0, 5.0], [0.0, 9.0]]
    assert parts.spread(torch.tensor([[7.0, 8.0], [9.0, 6.0]])).tolist() == [[7, 7, 0, 0, 8, 0], [0, 6, 6, 0, 0, 0]]


def test_what_stands_outside_is_never_read() -> None:
    parts = Segments(SEGMENT, MASK)
    poisoned = torch.where(parts.live, X, torch.nan).requires_grad_()
    found = torch.stack([parts.sums(poisoned), parts.means(poisoned), parts.firsts(poisoned), parts.lasts(poisoned)])
    assert torch.isfinite(found).all()
    found.sum().backward()
    assert torch.equal(poisoned.grad != 0, parts.live)


def test_without_any_position() -> None:
    parts = Segments(torch.zeros(2, 0, dtype=torch.long), torch.zeros(2, 0))
    assert parts.firsts(torch.zeros(2, 0)).tolist() == [[0.0], [0.0]]


def test_segments_must_match_the_mask() -> None:
    with pytest.raises(ValueError, match="integer"):
        Segments(torch.zeros(2, 6), MASK)
