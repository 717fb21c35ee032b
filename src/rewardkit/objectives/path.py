"""Backpropagation through a sampler: the loss is minus the reward of an output that still has its gradient."""

from __future__ import annotations

from torch import Tensor

from rewardkit.objectives.base import Loss, objective
from rewardkit.registry import entry


@entry(
    "objectives.policy:path_gradient",
    aliases=(
        "alignprop",
        "draft",
        "reward_backpropagation",
        "objectives.diffusion:reward_backprop",
        "objectives.diffusion:gumbel_reward_backprop",
        "objectives.diffusion:r0",
    ),
    tags=("differentiable-reward", "on-policy"),
    source="Prabhudesai et al. 2023 (AlignProp), arXiv:2310.03739; Clark et al. 2024 (DRaFT), arXiv:2309.17400",
)
@objective(per="sample")
def path_gradient(path_value: Tensor) -> Loss:
    """``-path_value``: its gradient is that of the reward of these very outputs, through the steps that made them.

    Args:
        path_value: ``[B]``, live, from a policy whose sampler can be differentiated: the term asks for it by
            ``want=(PathValue(reward, last=k),)``, see :class:`rewardkit.policies.path.PathValue`, and for
            discrete diffusion :class:`rewardkit.policies.masked.path.GumbelValue`.

    >>> import torch
    >>> path_gradient(torch.tensor([0.5, 2.0])).value.tolist()
    [-0.5, -2.0]
    """
    return Loss(-path_value, {"value": path_value.detach()})


@entry(
    "objectives.diffusion:discrete_path_kl",
    tags=("discrete-diffusion", "kl", "on-policy"),
    source="Wang et al. 2025 (DRAKES), arXiv:2410.13643, equation 5",
)
@objective(per="token")
def discrete_path_kl(path_kl: Tensor) -> Loss:
    """``path_kl``: the KL of each step of a masked diffusion policy to another, in nats.

    With ``Term(reduce="sequence_sums")`` it is the KL of the paths, an upper bound of that of their ends.

    Args:
        path_kl: ``[B, T]``, live: the term asks for it by ``want=(PathKL(policy.at("start")),)``, see
            :class:`rewardkit.policies.masked.path.PathKL`.

    >>> import torch
    >>> discrete_path_kl(torch.tensor([[0.5, 0.0]])).value.tolist()
    [[0.5, 0.0]]
    """
    return Loss(path_kl)
