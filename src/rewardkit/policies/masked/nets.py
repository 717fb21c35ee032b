"""Denoisers of masked sequences: a small convolutional one, and any masked language model of transformers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def embedded(weight: Tensor, x: Tensor) -> Tensor:
    """Embeddings ``[N, L, W]`` of ids, long ``[N, L]``, or of probabilities over them, ``[N, L, V]``.

    >>> weight = torch.eye(3)
    >>> torch.equal(embedded(weight, torch.tensor([[2]])), embedded(weight, torch.tensor([[[0.0, 0.0, 1.0]]])))
    True
    """
    return x.to(weight.dtype) @ weight if x.is_floating_point() else F.embedding(x, weight)


class SequenceNet(nn.Module):
    """Residual dilated convolutions that see both sides; what stands at a padded position has no influence.

    Args:
        size: kinds of tokens, the mask included. condition: numbers of a condition, 0 for none.
        width: channels. depth: layers; their dilations are 1, 2, 4 and again. kernel: odd.
    """

    def __init__(self, size: int, condition: int = 0, *, width: int = 48, depth: int = 3, kernel: int = 5) -> None:
        super().__init__()
        self.tokens = nn.Parameter(0.5 * torch.randn(size, width))
        self.about = nn.Linear(16 + condition, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(depth))
        steps = [2 ** (i % 3) for i in range(depth)]
        self.layers = nn.ModuleList(
            nn.Conv1d(width, width, kernel, padding=d * (kernel // 2), dilation=d) for d in steps
        )
        self.last = nn.Linear(width, size)

    def forward(self, x: Tensor, time: Tensor, present: Tensor, condition: Tensor | None = None) -> Tensor:
        """Ids or probabilities, ``[N]``, bool ``[N, L]``, ``[N, C]`` to logits ``[N, L, size]``."""
        angles = time[:, None] * torch.pi * 2.0 ** torch.arange(8, device=time.device)
        parts = [angles.sin(), angles.cos()] + ([] if condition is None else [condition.to(angles)])
        h = embedded(self.tokens, x) + self.about(torch.cat(parts, -1).to(self.tokens))[:, None]
        here = present[..., None].to(h)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            seen = F.silu(norm(h)) * here
            h = h + layer(seen.transpose(1, 2)).transpose(1, 2)
        return self.last(F.silu(h))


class HubDenoiser(nn.Module):
    """A masked language model of transformers. It is not told the time: the masks say how far one is.

    Args:
        model: ``AutoModelForMaskedLM``.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, time: Tensor, present: Tensor, condition: Tensor | None = None) -> Tensor:
        """As :meth:`SequenceNet.forward`; there is no condition but the text that stands unmasked."""
        mask = present.long()
        if not x.is_floating_point():
            return self.model(input_ids=x, attention_mask=mask).logits
        weight = self.model.get_input_embeddings().weight
        return self.model(inputs_embeds=embedded(weight, x), attention_mask=mask).logits
