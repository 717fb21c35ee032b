"""pass@k against counting every choice of k tries."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from rewardkit.measures.pass_at_k import pass_at_k


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_it_is_the_share_of_choices_that_hold_a_right_try(k: int) -> None:
    right = torch.tensor([[0, 1, 0, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [0, 0, 0, 0, 1]])
    for row, found in zip(right.tolist(), pass_at_k(right, k).tolist(), strict=True):
        tries = list(combinations(row, k))
        assert found == pytest.approx(sum(any(t) for t in tries) / len(tries))


def test_k_is_checked() -> None:
    with pytest.raises(ValueError, match="between 1 and the 2 tries"):
        pass_at_k(torch.zeros(1, 2), 3)
