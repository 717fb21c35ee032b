"""Losses on what denoising networks say, without log-probs: of the forward process alone."""

from __future__ import annotations

import torch
from torch import Tensor

from rewardkit.objectives.base import Loss, objective
from rewardkit.objectives.parts import inside, precise, same_shape
from rewardkit.protocols import Against
from rewardkit.registry import entry

SMALLEST = 1e-5
"""Of the mean absolute error that a squared one is divided by."""


class Contrast:
    """What :func:`nft` reads of a draw: how far the implied better and worse networks are from the data.

    With ``v`` what the network says and ``u`` what the old one says, the better one says ``beta v + (1 - beta) u`` and
    the worse one ``(1 + beta) u - beta v``. The squared error of each, a number, is divided by its mean absolute error
    as a constant.

    Args:
        beta: how far the better one lies from the old one towards the network.

    >>> one, two = torch.full((1, 4), 1.0), torch.zeros(1, 4)
    >>> Contrast()(one, two, two, one).tolist()
    [[0.0, 2.0, 1.0]]
    """

    __name__ = "contrast"

    def __init__(self, beta: float = 1.0) -> None:
        if not beta > 0:
            raise ValueError(f"beta must be positive, not {beta}: at 0 both networks are the old one")
        self.beta = beta

    def __call__(self, said: Tensor, old: Tensor, reference: Tensor, target: Tensor) -> Tensor:
        """``[N, ...]`` each to ``[N, 3]``: errors of the better and of the worse, mean square from the reference."""
        better = self.beta * said + (1 - self.beta) * old
        worse = (1 + self.beta) * old - self.beta * said
        moved = (said - reference).square().flatten(1).mean(1)
        return torch.stack([_error(better, target), _error(worse, target), moved], 1)


def _error(said: Tensor, target: Tensor) -> Tensor:
    apart = (said - target).flatten(1)
    return apart.square().mean(1) / apart.detach().abs().mean(1).clamp(min=SMALLEST)


def contrast(old: object, reference: object, *, beta: float = 1.0) -> Against:
    """What a term asks for, ``want=(contrast(policy.at("old"), policy.at("start")),)``, where it has :func:`nft`."""
    return Against(Contrast(beta), old, reference)


@entry(
    "objectives.diffusion:nft",
    aliases=("diffusion_nft", "negative_aware_finetuning"),
    tags=("diffusion", "flow", "on-policy", "no-log-probs"),
    source="Zheng et al. 2025 (DiffusionNFT), arXiv:2509.16117, algorithm 1; Wan et al. 2025 (MotionNFT), "
    "arXiv:2512.10284",
)
@objective(per="token")
def nft(
    contrast: Tensor,
    advantages: Tensor,
    noise_level: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    most: float = 5.0,
    beta: float = 1.0,
    kl: float = 1e-4,
) -> Loss:
    """Negative-aware fine-tuning: good outputs pull the better network to them, bad ones the worse network.

    With ``r = clip(advantages / (2 most) + 1 / 2, 0, 1)`` and errors of the data that the two networks point to::

        loss = most / beta * (r * error(better) + (1 - r) * error(worse)) + kl * |v - reference|**2

    Args:
        contrast: ``[B, T, 3]``, live, of :func:`contrast`; ``T`` are draws of a time and a noise.
        advantages: ``[B, T]``, constants.
        noise_level: ``[B, T]``, what an error of a flow's or a v-network's word is multiplied by to be one of the data;
            ``encode`` gives it.
        mask: ``[B, T]``. most: the advantage from which an output is wholly good. beta: as in :func:`contrast`.
        kl: of the drift from the reference, a squared unit of what the network says.

    Returns:
        ``[B, T]``. Metrics: ``optimality``, the mean of ``r``; ``moved``, the drift.

    >>> loss = nft(torch.tensor([[[0.5, 2.0, 0.0]]]), torch.tensor([[5.0]]), kl=0.0)
    >>> loss.value.item(), loss.metrics["optimality"].item()
    (2.5, 1.0)
    """
    if contrast.ndim != 3 or contrast.shape[2] != 3:
        raise ValueError(
            f"nft: contrast is [B, T, 3], not {tuple(contrast.shape)}: ask for it by want=(contrast(...),)"
        )
    better, worse, moved = precise(contrast).unbind(2)
    same_shape("nft", advantages=advantages, contrast=better, noise_level=noise_level, mask=mask)
    better, worse, moved, gains = (inside(x, mask) for x in (better, worse, moved, advantages.detach().to(better)))
    share = (gains / (2 * most) + 0.5).clamp(0, 1)
    level = 1.0 if noise_level is None else inside(noise_level.to(better), mask)
    value = most / beta * level * (share * better + (1 - share) * worse) + kl * moved
    return Loss(value, {"optimality": share, "moved": moved.detach()})
