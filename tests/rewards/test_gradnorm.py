"""Rewards whose gradients are made equally long: the value stays, the direction stays, rows stay apart."""

from __future__ import annotations

import torch
from torch import Tensor

from rewardkit.rewards.gradnorm import multi_reward_gradnorm, unit_gradient


def loud(x: Tensor, samples: object) -> Tensor:
    return 1e4 * x.flatten(1).square().sum(1)


def quiet(x: Tensor, samples: object) -> Tensor:
    return 1e-3 * x[:, 0, 0].sin()


def test_the_value_is_the_weighted_sum_and_the_gradient_the_weighted_sum_of_directions() -> None:
    x = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    value = multi_reward_gradnorm([(loud, 2.0), (quiet, 0.5)])(x, None)
    torch.testing.assert_close(value, 2 * loud(x, None) + 0.5 * quiet(x, None))
    [found] = torch.autograd.grad(value.sum(), x)
    want = torch.zeros_like(x)
    for reward, w in ((loud, 2.0), (quiet, 0.5)):
        [g] = torch.autograd.grad(reward(x, None).sum(), x)
        want = want + w * g / g.flatten(1).norm(dim=1)[:, None, None]
    torch.testing.assert_close(found, want)


def test_the_length_does_not_depend_on_the_batch_or_on_what_is_done_with_the_value() -> None:
    x = torch.randn(4, 1, 2, generator=torch.Generator().manual_seed(1)).requires_grad_()
    [mean] = torch.autograd.grad(unit_gradient(loud, x, None).mean(), x)
    torch.testing.assert_close(mean.flatten(1).norm(dim=1), torch.full((4,), 0.25))
    [alone] = torch.autograd.grad(unit_gradient(loud, x[:1], None).sum(), x)
    torch.testing.assert_close(alone[0], 4 * mean[0])


def test_a_flat_reward_adds_nothing() -> None:
    x = torch.ones(2, 2, requires_grad=True)
    [g] = torch.autograd.grad(unit_gradient(lambda x, s: (x * 0).sum(1) + 3, x, None).sum(), x)
    assert not g.any()


def test_gradients_reach_what_the_outputs_were_made_of() -> None:
    w = torch.tensor([2.0], requires_grad=True)
    value = unit_gradient(loud, (w * torch.ones(1, 2)), None)
    [g] = torch.autograd.grad(value.sum(), w)
    torch.testing.assert_close(g, torch.tensor([2**0.5]))
