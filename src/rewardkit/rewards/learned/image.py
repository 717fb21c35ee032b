"""Networks on pictures, as modules of reward models."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from rewardkit.registry import entry


@entry("rewards.learned:image_reward_cnn", tags=("reward-model", "image"))
class ImageCnn(nn.Module):
    """Four layers of convolutions on what a camera sees after a step: the module of a ``StepReward``.

    Args:
        render: from observations ``[N, D]`` to pictures ``[N, 3, H, W]`` in [0, 1]. width: channels of the first layer.

    >>> import torch
    >>> net = ImageCnn(lambda x: x.reshape(-1, 3, 16, 16))
    >>> net(torch.zeros(2, 768), torch.zeros(2, 1), torch.zeros(2, 768)).shape
    torch.Size([2])
    """

    def __init__(self, render: Callable[[Tensor], Tensor], width: int = 16) -> None:
        super().__init__()
        self.render = render
        self.net = nn.Sequential(
            nn.Conv2d(3, width, 4, 2, 1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.SiLU(),
            nn.Conv2d(2 * width, 2 * width, 4, 2, 1),
            nn.SiLU(),
            nn.Flatten(),
            nn.LazyLinear(64),
            nn.SiLU(),
            nn.Linear(64, 1),
        )

    def forward(self, before: Tensor, actions: Tensor, after: Tensor) -> Tensor:
        return self.net(2 * self.render(after) - 1)[:, 0]
