"""Backpropagation through a sampler: the loss is minus the reward of an output that still has its gradient."""

from __future__ import annotations

from torch import Tensor

from rewardkit.objectives.base import Loss, objective
from rewardkit.registry import entry


@entry(
    "objectives.policy:path_gradient",
    aliases=("alignprop", "draft", "reward_backpropagation"),
    tags=("differentiable-reward", "on-policy"),
    source="Prabhudesai et al. 2023 (AlignProp), arXiv:2310.03739; Clark et al. 2024 (DRaFT), arXiv:2309.17400",
)
@objective(per="sample")
def path_gradient(path_value: Tensor) -> Loss:
    """``-path_value``: its gradient is that of the reward of these very outputs, through the steps that made them.

    Args:
        path_value: ``[B]``, live, from a policy whose sampler can be differentiated: the term asks for it by
            ``want=(PathValue(reward, last=k),)``, see :class:`rewardkit.policies.diffusion.path.PathValue`.

    >>> import torch
    >>> path_gradient(torch.tensor([0.5, 2.0])).value.tolist()
    [-0.5, -2.0]
    """
    return Loss(-path_value, {"value": path_value.detach()})
