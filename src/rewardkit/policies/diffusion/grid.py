"""A small U-Net of diffusers' own blocks for pictures and latents, told of a prompt by a code and a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GridNet(nn.Module):
    """diffusers' ``UNet2DModel`` at two resolutions, with attention at the lower one.

    A prompt's code is added to the embedding of the time; a picture that belongs to the prompt is laid over the noisy
    one as further channels.

    Args:
        shape: ``(C, H, W)`` of a state. code: numbers of a prompt's code. source: channels of a picture that belongs to
            the prompt, 0 for none. patch: pixels of a square of this side are channels of one place: the network is
            that much smaller. widths: of the two resolutions. scale: what times are multiplied by, so that they lie
            between 0 and 1000.

    >>> net = GridNet((4, 8, 8), code=3, widths=(8, 16))
    >>> net(torch.zeros(2, 4, 8, 8), torch.zeros(2), torch.zeros(2, 3)).shape
    torch.Size([2, 4, 8, 8])
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        code: int,
        source: int = 0,
        *,
        patch: int = 1,
        widths: tuple[int, int] = (24, 48),
        scale: float = 1.0,
    ) -> None:
        from diffusers import UNet2DModel

        super().__init__()
        channels, height, width = shape
        self.patch, self.scale = patch, scale
        self.told = nn.Linear(code, 4 * widths[0])
        unet: Any = UNet2DModel(
            sample_size=(height // patch, width // patch), in_channels=(channels + source) * patch**2,
            out_channels=channels * patch**2, block_out_channels=widths, layers_per_block=1, norm_num_groups=8,
            attention_head_dim=16, down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
            class_embed_type="identity",
        )  # fmt: skip
        self.unet = unet

    def forward(self, x: Tensor, time: Tensor, condition: Tensor | Mapping[str, Tensor]) -> Tensor:
        """``[N, C, H, W]``, ``[N]`` and a code ``[N, K]``, or ``code`` and ``source`` by name, to ``[N, C, H, W]``."""
        said = condition if isinstance(condition, Mapping) else {"code": condition}
        whole = torch.cat([x, said["source"].to(x)], 1) if "source" in said else x
        cut = F.pixel_unshuffle(whole, self.patch)
        out = self.unet(cut, time * self.scale, class_labels=self.told(said["code"].to(x)), return_dict=False)[0]
        return F.pixel_shuffle(out, self.patch)
