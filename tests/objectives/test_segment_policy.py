"""The clipped surrogate of actions of several tokens."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rewardkit import testing
from rewardkit.objectives.base import Loss, objective
from rewardkit.objectives.policy import clipped
from rewardkit.objectives.segment_policy import macro_clipped


@objective(per="token")
def in_pairs(logps: Tensor, old_logps: Tensor, advantages: Tensor, mask: Tensor) -> Loss:
    """Actions of two trained positions each."""
    live = mask > 0
    return macro_clipped(logps, old_logps, advantages, torch.where(live, live.long().cumsum(1).sub(1) // 2, -1), mask)


def test_passes_every_oracle() -> None:
    ran = testing.check(in_pairs, testing.language_batch)
    assert {"pure", "padding", "row_order", "nan_outside", "all_masked", "precision", "extreme", "gradients"} <= set(
        ran
    )


@pytest.mark.parametrize("dual", [None, 3.0])
def test_one_token_a_segment_is_clipped(dual: float | None) -> None:
    names = testing.language_batch(3)
    logps, old, gain, mask = (names[n] for n in ("logps", "old_logps", "advantages", "mask"))
    turn = torch.arange(mask.shape[1]).expand(mask.shape)
    one, two = logps.clone().requires_grad_(), logps.clone().requires_grad_()
    found = macro_clipped(one, old, gain, turn, mask, high=0.3, dual=dual)
    want = clipped(two, old, gain, mask, high=0.3, dual=dual)
    live = mask > 0
    assert torch.equal(found.value[live], want.value[live])
    for name, x in want.metrics.items():
        assert torch.equal(found.metrics[name][live], x[live]), name
    (found.value * mask).sum().backward()
    (want.value * mask).sum().backward()
    assert torch.equal(one.grad, two.grad)


def test_by_hand() -> None:
    """Neither token of the first action leaves the clip by itself, and the action does; its gradient stops."""
    turn = torch.tensor([[0, 0, -1, 1, 1]])
    mask = (turn >= 0).double()
    apart = torch.tensor([[0.15, 0.15, 5.0, 0.3, -0.2]], dtype=torch.float64, requires_grad=True)
    gain = torch.tensor([[2.0, 2.0, 9.0, -1.0, -1.0]], dtype=torch.float64)
    old = torch.zeros_like(gain)
    found = macro_clipped(apart, old, gain, turn, mask)
    second = math.exp(0.1)
    torch.testing.assert_close(
        found.value, torch.tensor([[-2.4, -2.4, 0.0, second, second]], dtype=torch.float64), rtol=1e-12, atol=1e-12
    )
    assert found.metrics["clip_high"].tolist() == [[1.0, 1.0, 0.0, 0.0, 0.0]]
    assert (clipped(apart, old, gain, mask).metrics["clip_high"][0, :2] == 0).all()  # token by token, nothing is held
    found.value.sum().backward()
    # Two tokens carry the loss of the action, so each token's gradient is twice its derivative.
    torch.testing.assert_close(apart.grad, torch.tensor([[0, 0, 0, 2 * second, 2 * second]], dtype=torch.float64))


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match="turn is"):
        macro_clipped(*(torch.zeros(2, 3),) * 3, torch.zeros(2, 2, dtype=torch.long), torch.ones(2, 3))
