"""The tensors of images beside a batch of ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rewardkit.policies.language.batch import Padded, Row

NEVER = -1e4
"""Added to the logits of tokens that stand for media: a probability of 0 whose logarithm is a number."""


def with_media(batch: Padded, rows: Sequence[Row], core: Any) -> Padded:
    """The batch with the images of its rows, and the positions that the model gives them.

    Args:
        batch: of the rows' ids. rows: with their media, by the names of the model's ``forward``; processors put the
            images of several rows one after another. core: a transformers model that reads them.
    """
    shown = [r.media for r in rows if r.media]
    if not shown:
        return batch
    kind = next(core.parameters()).dtype
    joined = {name: torch.cat([m[name] for m in shown]).to(batch.ids.device) for name in shown[0]}
    media = {k: v.to(kind) if v.is_floating_point() else v for k, v in joined.items()}
    return batch._replace(media=media, positions=_positions(batch, media, core))


def _positions(batch: Padded, media: dict[str, Tensor], core: Any) -> Tensor:
    """Time, height and width for models that number images so (M-RoPE, Qwen2-VL and after); else as they are."""
    trunk = getattr(core, core.base_model_prefix, core)
    if not hasattr(trunk, "get_rope_index"):
        return batch.positions
    places = (batch.ids == core.config.image_token_id).int()
    return trunk.get_rope_index(
        batch.ids, mm_token_type_ids=places, image_grid_thw=media["image_grid_thw"], attention_mask=batch.mask
    )[0]


class _Never:
    """A forward hook of the output layer. It travels with copies of the model."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = list(ids)

    def __call__(self, module: nn.Module, given: Any, logits: Tensor) -> Tensor:
        barred = torch.zeros(logits.shape[-1], dtype=logits.dtype, device=logits.device)
        barred[self.ids] = NEVER
        return logits + barred


def never_write(core: Any, ids: Sequence[int]) -> None:
    """The model gives these tokens no probability, in sampling and evaluation alike.

    A sampled image token could not be read again: there would be no image for it. Saved weights do not change.
    """
    head = core.get_output_embeddings()
    if not any(isinstance(hook, _Never) for hook in head._forward_hooks.values()):
        head.register_forward_hook(_Never(ids))
