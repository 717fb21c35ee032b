"""The last layer of a packed row for the tokens alone whose states are read; its keys and values are of all tokens.

What a prompt's tokens become in the last layer nobody reads: the query, the output projection and the feed-forward
part of that layer are left out for them. A forward pre-hook of the layer does it. The layer is called twice: the first
time it comes as far as its attention function, which holds the keys and values of all tokens and stops it; the second
time it runs for the tokens that are read, over those keys.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from rewardkit.policies.language.batch import Batch
from rewardkit.policies.language.segments import Segments

LEAST = 32
"""Tokens of a row for which it is worth while."""
SHARE = 0.75
"""Of the tokens; where more than these are read all are computed."""


class _HeldError(Exception):
    """The keys and values are there: the first call is over."""


@dataclass(eq=False)
class Narrow:
    """What the attention function of the last layer is handed.

    Args:
        asking: the segments with those of their last tokens asking that are read. at: their columns, long ``[n]``.
        held: the keys and values of all tokens, once they are there.
    """

    asking: Segments
    at: Tensor
    held: tuple[Tensor, Tensor] | None = None

    def hold(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The keys and values of all tokens; the first call ends here."""
        if self.held is None:
            self.held = key, value
            raise _HeldError
        return self.held


def narrowed(segments: Segments, places: Tensor) -> Narrow | None:
    """The last tokens of each segment from the first that is read; ``None`` where that is most of the row.

    Args:
        places: columns, long, on the host.
    """
    first = torch.tensor([0, *accumulate(segments.sizes)])
    length = int(first[-1])
    if length < LEAST or not segments.causal:
        return None
    owner = torch.bucketize(places, first[1:], right=True)
    begins = first[1:].scatter_reduce(0, owner, places, "amin")
    asked = (first[1:] - begins).tolist()
    if sum(asked) > SHARE * length:
        return None
    at = torch.cat([torch.arange(a, b) for a, b in zip(begins.tolist(), first[1:].tolist(), strict=True)])
    return Narrow(replace(segments, asked=asked), at)


_LAST: weakref.WeakKeyDictionary[nn.Module, nn.Module | None] = weakref.WeakKeyDictionary()


def last_layer(model: Any) -> nn.Module | None:
    """The last layer of the part that reads text, ``None`` where it is not to be found or its activations are computed
    anew in the backward pass."""
    if model not in _LAST:
        text = model.config.get_text_config()
        trunks = [m for m in model.modules() if getattr(m, "config", None) is text]
        lists = [c for m in trunks for c in m.children() if isinstance(c, nn.ModuleList)]
        found = [c for c in lists if len(c) == text.num_hidden_layers]
        _LAST[model] = found[0][-1] if found else None
    layer: Any = _LAST[model]
    checkpoints = getattr(layer, "gradient_checkpointing", False) and layer.training
    return None if checkpoints else layer


def always_whole(model: nn.Module) -> None:
    """From now on the last layer of this model runs for every token."""
    _LAST[model] = None


def _last_answers(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
    """The forward pre-hook. What it does is said by the segments that come with the call, so several threads may run
    one model."""
    segments = kwargs.get("segments")
    if not isinstance(segments, Segments) or segments.narrow is None:
        return None
    narrow: Narrow = segments.narrow
    length, given = sum(segments.sizes), kwargs | {"segments": narrow}
    try:
        module.forward(*args, **given)  # not the module itself: its hooks run once, in the call that goes on
    except _HeldError:
        return _taken(args, narrow.at, length), _taken(given, narrow.at, length)
    raise RuntimeError(f"{type(module).__name__} did not call its attention function")


def _hooked(layer: nn.Module) -> bool:
    """Whether the hook is the last to see what the layer is given: one that came after it could still change that."""
    hooks = list(layer._forward_pre_hooks.values())
    if _last_answers not in hooks:
        layer.register_forward_pre_hook(_last_answers, with_kwargs=True)
        return True
    return hooks[-1] is _last_answers


def _taken(given: Any, at: Tensor, length: int) -> Any:
    """The same with every tensor at these columns, on the axis that is as long as the row."""
    if isinstance(given, Tensor):
        axis = next((i for i, size in enumerate(given.shape) if size == length), None)
        return given if axis is None else given.index_select(axis, at.to(given.device))
    if isinstance(given, tuple):
        return tuple(_taken(x, at, length) for x in given)
    if isinstance(given, dict):
        return {k: _taken(x, at, length) for k, x in given.items()}
    return given


def read_states(model: Any, run: Callable[[], Tensor], batch: Batch, places: Tensor) -> Tensor:
    """What ``run`` gives at these places of the batch laid flat, ``[N, H]``, with no more computed than is needed.

    Args:
        model: of transformers. run: its forward pass over the batch, ``[B, L, H]``. places: long, on the host.
    """
    segments: Any = batch.media.get("segments")
    narrow = None if segments is None else narrowed(segments, places)
    layer = None if narrow is None else last_layer(model)
    if narrow is None or layer is None or not _hooked(layer):
        states = run()
        return states.flatten(0, 1).index_select(0, places.to(states.device))
    segments.narrow = narrow
    try:
        states = run()
    finally:
        segments.narrow = None
    # A last layer that was put in the place of this one computes all.
    at = torch.searchsorted(narrow.at, places) if states.shape[1] == len(narrow.at) else places
    return states.flatten(0, 1).index_select(0, at.to(states.device))
