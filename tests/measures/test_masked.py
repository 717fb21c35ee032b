"""Sums and means over positions."""

from __future__ import annotations

import torch

from rewardkit.measures.masked import masked_mean


def test_a_row_without_weight_has_mean_0_and_no_gradient_whatever_the_precisions() -> None:
    for precision in (torch.float64, torch.float32):
        x = torch.randn(2, 3, dtype=precision, requires_grad=True)
        mean = masked_mean(x, torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]))
        mean.sum().backward()
        assert mean[1] == 0
        assert x.grad is not None
        assert torch.isfinite(x.grad).all()
