"""Distance from a source to its edit."""

from __future__ import annotations

import pytest
import torch

from rewardkit.evals.source_fidelity import source_fidelity
from rewardkit.types import Sample


def test_the_distance_is_the_root_mean_square_of_each_edit() -> None:
    sources = [Sample("p", torch.zeros(2, 2)), Sample("p", torch.zeros(2, 2))]
    edits = [Sample("p", torch.full((2, 2), 3.0)), Sample("p", torch.tensor([[2.0, 0.0], [0.0, 0.0]]))]
    found = source_fidelity(sources, edits)
    assert found.value == pytest.approx((3 + 1) / 2)
    assert found.n == 2
    assert found.ci is not None
    assert found.ci[0] < found.value < found.ci[1]


def test_features_are_compared_by_their_angle() -> None:
    source, edit = Sample("p", torch.tensor([1.0, 0.0])), Sample("p", torch.tensor([0.0, 5.0]))
    assert source_fidelity([source], [edit], feature=lambda x: x).value == pytest.approx(1.0)
    assert source_fidelity(
        [source], [Sample("p", torch.tensor([9.0, 0.0]))], feature=lambda x: x
    ).value == pytest.approx(0)


def test_numbers_must_match() -> None:
    with pytest.raises(ValueError, match="1 for 2"):
        source_fidelity([Sample("p", torch.zeros(1))] * 2, [Sample("p", torch.zeros(1))])
