"""Ragged rows of token ids to padded tensors, with the mask and the positions said explicitly."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from rewardkit.types import Rollout

Side = Literal["left", "right"]
NOTHING: Mapping[str, Tensor] = MappingProxyType({})


class Row(NamedTuple):
    """Ids of a prompt and ids of its output; ``media``: tensors that the model reads beside them, by its own names."""

    prompt: list[int]
    output: list[int]
    media: Mapping[str, Tensor] = NOTHING


class Padded(NamedTuple):
    """``ids``, ``mask`` (1 where a token stands) and ``positions`` (restarting at the first token), long ``[B, L]``;
    ``first`` long ``[B]``, the column of each row's first token.

    ``media``: what else the model's ``forward`` takes for these rows. A model that gives images positions of their own
    has ``positions`` ``[axes, B, L]``.
    """

    ids: Tensor
    mask: Tensor
    positions: Tensor
    first: Tensor
    media: Mapping[str, Tensor] = NOTHING


def pad(rows: Sequence[Sequence[int]], side: Side, device: torch.device, fill: int = 0) -> Padded:
    """Rows padded on ``side`` to the longest. The fill never matters: the mask is explicit.

    >>> pad([[5, 6], [7]], "left", torch.device("cpu")).mask.tolist()
    [[1, 1], [0, 1]]
    """
    lengths = torch.tensor([len(r) for r in rows])
    width = int(lengths.max())
    empty = width - lengths
    first = empty if side == "left" else torch.zeros_like(empty)
    filled = [
        [fill] * (width - len(r)) + list(r) if side == "left" else list(r) + [fill] * (width - len(r)) for r in rows
    ]
    column = torch.arange(width)[None, :]
    mask = ((column >= first[:, None]) & (column < (first + lengths)[:, None])).long()
    positions = (column - first[:, None]).clamp(min=0).minimum((lengths - 1)[:, None])
    return Padded(torch.tensor(filled).to(device), mask.to(device), positions.to(device), first.to(device))


def forward_inputs(module: nn.Module, batch: Padded) -> dict[str, Any]:
    """Keyword arguments for a transformer: positions only where its ``forward`` takes them."""
    inputs: dict[str, Any] = {"input_ids": batch.ids, "attention_mask": batch.mask, **batch.media}
    if accepts(module, "position_ids"):
        inputs["position_ids"] = batch.positions
    return inputs


def accepts(module: nn.Module, name: str) -> bool:
    """Whether ``module.forward`` has a parameter of this name."""
    return name in inspect.signature(module.forward).parameters


def without_cache(module: nn.Module) -> dict[str, Any]:
    """``use_cache=False`` where ``module.forward`` takes it."""
    return {"use_cache": False} if accepts(module, "use_cache") else {}


def response_positions(batch: Padded, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Row and column, long ``[N]`` each, of every output token; the state before it is one column to the left."""
    first = batch.first.tolist()
    pairs = [(i, first[i] + len(r.prompt) + t) for i, r in enumerate(rows) for t in range(len(r.output))]
    index = torch.tensor(pairs, device=batch.ids.device)
    return index[:, 0], index[:, 1]


def over_rows(
    rollout: Rollout,
    names: Sequence[str],
    run: Callable[[list[Row]], Sequence[Tensor]],
    *,
    max_tokens: int,
    device: torch.device,
) -> dict[str, Tensor]:
    """Evaluate a rollout's rows in batches of similar length and put the results in their places.

    Args:
        rollout: with ``prompt_ids`` and ``output_ids`` in its inputs, and ``media`` where its prompts show more.
        names: of the results. run: rows to one ``[N, ...]`` a name, ``N`` output tokens in order.
        max_tokens: padded tokens of one batch.

    Returns:
        ``[B, T, ...]`` for each name, 0 where there is no token.

    Raises:
        KeyError: for a rollout without token ids.
    """
    if "prompt_ids" not in rollout.inputs:
        raise KeyError("this rollout has no token ids: encode its samples with the policy first")
    prompts, outputs = rollout.inputs["prompt_ids"], rollout.inputs["output_ids"]
    media = rollout.inputs.get("media", [NOTHING] * len(prompts))
    (size, width), places, parts = rollout.mask.shape, [], []
    rows = [i for i in range(size) if outputs[i]]
    for batch in by_length([len(prompts[i]) + len(outputs[i]) for i in rows], max_tokens):
        chosen = [rows[i] for i in batch]
        parts.append(run([Row(prompts[i], outputs[i], media[i]) for i in chosen]))
        places += [i * width + t for i in chosen for t in range(len(outputs[i]))]
    if not parts:
        return {name: torch.zeros(size, width, device=device) for name in names}
    at = torch.tensor(places, device=device)
    found = {}
    for name, values in zip(names, zip(*parts, strict=True), strict=True):
        flat = torch.cat(values)
        empty = flat.new_zeros(size * width, *flat.shape[1:])
        found[name] = empty.index_copy(0, at, flat).unflatten(0, (size, width))
    return found


def by_length(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Row numbers in batches of similar length whose padded size (rows times longest) stays within ``budget``.

    A row longer than the budget stands alone.
    """
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batch and (len(batch) + 1) * lengths[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
