"""Attention over packed rows, registered with transformers: each segment over its ancestors and itself.

The forward pass is handed :class:`rewardkit.policies.language.segments.Segments` under the name ``segments``, which
transformers passes down to the attention function beside the layer's window, soft cap and sinks. Without it the
function attends as ``sdpa`` does, or by plain arithmetic where ``sdpa`` cannot (soft cap, sinks). While sampling,
``keep`` is filled with each call's keys and values of a packed row, and ``decode`` holds them for one token a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rewardkit.policies.language.decode_cache import DecodeCache
from rewardkit.policies.language.narrow import Narrow
from rewardkit.policies.language.segments import Call, Segments

NAME = "rewardkit_segments"
UNKNOWN = ("indices", "block_indices", "position_bias", "sinks")
"""What some models hand their attention function and this one knows nothing of."""
VARLEN = find_spec("torch.nn.attention.varlen") is not None
"""Whether this torch has FlashAttention for rows of different lengths."""


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    scale: float | None,
    causal: bool,
    dropout: float = 0.0,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attention of ``[n, H, Q, D]`` over keys and values ``[n, H_kv, K, D]``; ``H_kv`` divides ``H``.

    Args:
        mask: added to the scores, float, or which keys are seen, bool; ``[n or 1, 1 or H, Q, K]``.
        softcap: scores go through ``softcap * tanh(scores / softcap)``. sinks: ``[H]``, a score of each head that
            takes part in the softmax and has no value.
    """
    if softcap is None and sinks is None:
        grouped = query.shape[1] != key.shape[1]
        return scaled_dot_product_attention(
            query, key, value, mask, dropout, is_causal=causal, scale=scale, enable_gqa=grouped
        )
    times = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(times, 1), value.repeat_interleave(times, 1)
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        # Not minus infinity: what stands before a row's first token sees nothing, and its softmax must be a number.
        low = torch.finfo(scores.dtype).min
        scores = scores.masked_fill(~mask, low) if mask.dtype == torch.bool else scores + mask
    if sinks is not None:
        column = sinks.to(scores.dtype).reshape(1, -1, 1, 1).expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, column], -1)
    wide = torch.promote_types(scores.dtype, torch.float32)
    weights = nn.functional.dropout(scores.softmax(-1, dtype=wide).to(query.dtype), dropout)
    return weights[..., : key.shape[-2]] @ value


def _together(parts: Sequence[Tensor]) -> Tensor:
    """``[length, heads, D]`` each, padded on the right: ``[n, heads, longest, D]``."""
    joined = parts[0][None] if len(parts) == 1 else pad_sequence(list(parts), batch_first=True)
    return joined.transpose(1, 2)


def _read(parts: Sequence[Tensor], call: Call) -> Tensor:
    """The keys, or values, of a call's members."""
    read = [[parts[s][first:] if first else parts[s] for s, first in spans] for spans in call.keys]
    return _together([spans[0] if len(spans) == 1 else torch.cat(spans) for spans in read])


def _fused(query: Tensor, plain: bool) -> bool:
    """Whether FlashAttention takes rows of different lengths as they are."""
    return VARLEN and query.is_cuda and plain and query.dtype in (torch.float16, torch.bfloat16)


def _varlen(rows: tuple[Tensor, ...], segments: Segments, window: int | None, scale: float | None) -> Tensor:
    """All segments in one call: queries ``[L, H, D]`` over keys and values ``[L, H_kv, D]``."""
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = rows
    at, ends, most = segments.gathered(window, query)
    left = -1 if window is None else window - 1
    found = varlen_attn(
        query, key.index_select(0, at), value.index_select(0, at), *ends, *most, scale=scale,
        window_size=(left, 0 if segments.causal else left), enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip
    return cast(Tensor, found)


def segment_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    segments: Segments | Narrow | None = None,
    keep: list[tuple[Tensor, Tensor]] | None = None,
    decode: DecodeCache | None = None,
    **given: Any,
) -> tuple[Tensor, None]:
    """The attention function: see the module. ``query`` ``[1, H, L, D]`` for a packed row; gives ``[1, L, H, D]``."""
    if decode is not None:
        window, how = sliding_window, {"scale": scaling, "softcap": softcap, "sinks": s_aux}
        return decode.attend(query, key, value, window=window, **how), None
    cap: dict[str, Any] = {"scale": scaling, "dropout": dropout, "softcap": softcap, "sinks": s_aux}
    unknown = sorted(name for name in UNKNOWN if given.get(name) is not None)
    if unknown or (segments is not None and attention_mask is not None and attention_mask.numel() > 1):
        raise TypeError(f"{type(module).__name__} attends in a way of its own ({', '.join(unknown) or 'its mask'})")
    if segments is None:
        if softcap is None and s_aux is None:
            options = {"sliding_window": sliding_window, "scaling": scaling, "dropout": dropout}
            return sdpa_attention_forward(module, query, key, value, attention_mask, **options, **given)
        causal = attention_mask is None and query.shape[2] > 1 and getattr(module, "is_causal", True)
        return attend(query, key, value, attention_mask, causal=causal, **cap).transpose(1, 2), None
    if isinstance(segments, Narrow):
        key, value = segments.hold(key, value)
        segments = segments.asking
    if keep is not None:
        keep.append((key, value))
    rows = tuple(x[0].transpose(0, 1) for x in (query, key, value))
    if _fused(query, softcap is None and s_aux is None and not dropout and segments.blocks is None):
        return _varlen(rows, segments, sliding_window, scaling)[None], None
    # Split and concatenated, never indexed: the backward pass of a slice fills a whole row with zeros.
    sizes = (segments.asked, segments.sizes, segments.sizes)
    queries, keys, values = (x.split(list(size)) for x, size in zip(rows, sizes, strict=True))
    found = [v.new_empty(0, query.shape[1], v.shape[-1]) for v in values]
    for call in segments.plan(sliding_window, query):
        q = _together([queries[s] for s in call.members])
        out = attend(q, _read(keys, call), _read(values, call), call.mask, causal=call.causal, **cap)
        for s, own in zip(call.members, out.transpose(1, 2).unbind(), strict=True):
            found[s] = own[: segments.asked[s]] if len(call.members) > 1 else own
    return torch.cat(found)[None], None


AttentionInterface.register(NAME, segment_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
