"""Several differentiable rewards at once, none louder than another: each gradient has the length of its weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rewardkit.registry import entry

Value = Callable[[Tensor, Any], Tensor]
"""``(outputs [N, ...], samples) -> [N]``, with gradients; what :class:`rewardkit.policies.path.PathValue` asks."""


@entry(
    "rewards.compose:multi_reward_gradnorm",
    tags=("differentiable", "operator"),
    source="Luo et al. 2025 (R0), arXiv:2503.13070: rewards normalised by the norm of their gradients at the image",
)
def multi_reward_gradnorm(rewards: Sequence[tuple[Value, float]]) -> Value:
    """``sum_k w_k r_k``, whose gradient at each output is ``sum_k w_k g_k / |g_k|``.

    Only directions are added, so that a reward in large units does not drown the others. It is done row by row: a
    row's gradient does not depend on the rows beside it. Where a reward is flat, it adds nothing.

    Args:
        rewards: functions and their weights.

    >>> both = multi_reward_gradnorm([(lambda x, s: 1000 * x[:, 0], 1.0), (lambda x, s: -x[:, 1] ** 2, 0.5)])
    >>> x = torch.tensor([[1.0, 3.0]], requires_grad=True)
    >>> value = both(x, None)
    >>> value.item(), torch.autograd.grad(value.sum(), x)[0].tolist()
    (995.5, [[1.0, -0.5]])
    """

    def value(outputs: Tensor, samples: Any) -> Tensor:
        return torch.stack([w * unit_gradient(r, outputs, samples) for r, w in rewards]).sum(0)

    return value


def unit_gradient(reward: Value, outputs: Tensor, samples: Any) -> Tensor:
    """``reward(outputs)`` ``[N]``, each with a gradient of length 1 at its output, or 0 where it is flat."""
    leaf = outputs.detach().requires_grad_()
    with torch.enable_grad():
        value = reward(leaf, samples)
        [g] = torch.autograd.grad(value.sum(), leaf)
    length = g.flatten(1).norm(dim=1).clamp(min=torch.finfo(g.dtype).tiny)
    unit = g / length.reshape(-1, *[1] * (g.ndim - 1))
    along = (outputs * unit).flatten(1).sum(1)
    return value.detach() + along - along.detach()
