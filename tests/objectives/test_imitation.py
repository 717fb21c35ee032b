"""Maximum likelihood."""

from __future__ import annotations

import torch

from rewardkit.objectives.base import mean
from rewardkit.objectives.imitation import sft
from rewardkit.policies.table import TablePolicy


def test_sft_fits_the_frequencies_of_the_data() -> None:
    policy = TablePolicy(["x"], ["a", "b", "c"], logits=torch.randn(1, 1, 3, dtype=torch.float64))
    rollout = policy.encode(policy.enumerate("x")[0])
    mask = torch.tensor([[0.2], [0.5], [0.3]], dtype=torch.float64)
    optimiser = torch.optim.SGD([policy.logits], lr=2.0)
    for _ in range(300):
        loss = mean(sft(policy.evaluate(rollout)["logps"]), mask, sft)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    torch.testing.assert_close(policy.enumerate("x")[1].detach(), mask[:, 0], atol=1e-6, rtol=0)


def test_weights_by_row_and_by_position_multiply_the_loss() -> None:
    logps = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]])
    assert sft(logps, weight=torch.tensor([1.0, 2.0])).value.tolist() == [[1.0, 2.0], [6.0, 8.0]]
    assert sft(logps, weight=torch.tensor([[0.0, 1.0], [1.0, 0.0]])).value.tolist() == [[0.0, 2.0], [3.0, 0.0]]


def test_half_precision_log_probs_are_averaged_in_single_precision() -> None:
    """R36"""
    logps = torch.full((1, 4096), -1.01, dtype=torch.bfloat16)
    assert sft(logps).value.dtype == torch.float32
