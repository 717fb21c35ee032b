"""The tensors of images beside a batch of ids."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rewardkit.policies.language.batch import Batch, Row, Side
from rewardkit.policies.language.packing import Collator
from rewardkit.policies.language.tries import Trie

NEVER = -1e4
"""Added to the logits of tokens that stand for media: a probability of 0 whose logarithm is a number."""


class ImageCollator(Collator):
    """Rows whose prompts show images, with the tensors of those and the positions that the model gives them.

    Args:
        core: a transformers model that reads them, by the names of its ``forward``. fill: the id that pads.
    """

    least = 1
    """An image is worth sharing, however few tokens it has."""

    def __init__(self, core: Any, fill: int = 0) -> None:
        super().__init__(next(core.parameters()).device, fill)
        self.core = core

    def kind(self, row: Row) -> Hashable:
        """Rows share nothing before they have shared the last of their images: each is read once."""
        if not row.media:
            return None
        ids = row.prompt + row.output
        last = max((i for i, token in enumerate(ids) if token == self.core.config.image_token_id), default=-1)
        return id(row.media), tuple(ids[: last + 1])

    def pad(self, rows: Sequence[Row], side: Side) -> Batch:
        """The rows, padded on ``side``."""
        batch = super().pad(rows, side)
        media = self._joined([r.media for r in rows])
        if media and hasattr(self._trunk, "get_rope_index"):
            batch = batch._replace(positions=self._axes(batch.ids, batch.mask, media))
        if self._both_ways:
            media["token_type_ids"] = self._shows(batch.ids).long() * batch.mask
        return batch._replace(media=media)

    def pack(self, rows: Sequence[Row], group: Sequence[Trie]) -> Batch:
        """Tries of the rows, one after another in a single row."""
        batch = super().pack(rows, group)
        media = self._joined([rows[trie.rows[0]].media for trie in group])
        if media and hasattr(self._trunk, "get_rope_index"):
            positions = [self._trie_axes(trie, rows[trie.rows[0]]) for trie in group]
            batch = batch._replace(positions=torch.cat(positions, 1)[:, None].to(self.device))
        if self._both_ways:
            shows = self._shows(batch.ids[0])
            starts = shows & ~torch.cat([shows.new_zeros(1), shows[:-1]])
            batch.media["segments"].blocks = torch.where(shows, starts.cumsum(0), -1).cpu()
        return batch._replace(media={**media, **batch.media})

    @property
    def _trunk(self) -> Any:
        return getattr(self.core, self.core.base_model_prefix, self.core)

    @property
    def _both_ways(self) -> bool:
        """Whether the tokens of an image see each other, whichever comes first."""
        return self.core.config.model_type == "gemma3"

    def _shows(self, ids: Tensor) -> Tensor:
        return ids == self.core.config.image_token_id

    def _joined(self, shown: Sequence[Mapping[str, Tensor]]) -> dict[str, Any]:
        """The images of several rows one after another, as processors put them."""
        shown = [media for media in shown if media]
        kind = next(self.core.parameters()).dtype
        joined = {name: torch.cat([m[name] for m in shown]).to(self.device) for name in (shown[0] if shown else ())}
        return {k: v.to(kind) if v.is_floating_point() else v for k, v in joined.items()}

    def _axes(self, ids: Tensor, mask: Tensor, media: Mapping[str, Tensor]) -> Tensor:
        """Time, height and width for models that number images so (M-RoPE, Qwen2-VL and after): ``[3, B, L]``."""
        grid, places = media["image_grid_thw"], self._shows(ids).int()
        return self._trunk.get_rope_index(ids, mm_token_type_ids=places, image_grid_thw=grid, attention_mask=mask)[0]

    def _trie_axes(self, trie: Trie, row: Row) -> Tensor:
        """The same for the nodes of a trie: ``[3, its tokens]``. Behind the images every axis counts alike."""
        root, depths = trie.nodes[0], [node.depth + torch.arange(len(node.ids)) for node in trie.nodes]
        if not row.media:
            return torch.cat(depths).expand(3, -1)
        ids = torch.from_numpy(root.ids)[None].to(self.device)
        first = self._axes(ids, torch.ones_like(ids), row.media)[:, 0].cpu()
        behind = first.max() + 1 - len(root.ids)
        return torch.cat([first, *(depth.expand(3, -1) + behind for depth in depths[1:])], 1)


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
