"""Pseudo labels of segments, by hand."""

from __future__ import annotations

import pytest
import torch

from rewardkit.feedback.segments import pseudo_segment_labels, share_finished


def ends(closed: list[int], speed: list[float]) -> list[int]:
    return pseudo_segment_labels(torch.tensor(closed) > 0, torch.tensor(speed)).nonzero()[:, 0].tolist()


def test_the_gripper_ends_segments() -> None:
    assert ends([0, 0, 1, 1, 0, 0], [1.0] * 6) == [2, 4, 5]
    assert ends([1, 1], [1.0, 1.0]) == [0, 1]  # open before the first step


def test_a_rest_ends_a_segment_once() -> None:
    assert ends([0] * 6, [1.0, 0.0, 0.001, 1.0, 0.0, 1.0]) == [1, 4, 5]


def test_shares_count_what_was_finished_before() -> None:
    found = share_finished(torch.tensor([True, False, True, False, True, True]))
    assert found.tolist() == [0.0, 0.25, 0.25, 0.5, 0.5, 0.75]
    assert share_finished(torch.zeros(0, dtype=torch.bool)).tolist() == []


def test_wrong_shapes() -> None:
    with pytest.raises(ValueError, match=r"\[T\]"):
        pseudo_segment_labels(torch.zeros(2, dtype=torch.bool), torch.zeros(3))
