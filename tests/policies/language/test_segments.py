"""The attention of packed rows against one softmax over a mask written out."""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from rewardkit.policies.language.attention import attend, segment_attention
from rewardkit.policies.language.segments import Segments

FOREST = {
    "one": ([7], [-1]),
    "pair": ([30, 5, 9], [-1, 0, 0]),
    "tree": ([12, 6, 3, 4, 8, 5], [-1, 0, 1, 1, 0, -1]),
    "rows": ([5, 9, 3, 9, 1], [-1] * 5),
    "group": ([20, *range(3, 11), 4], [-1, *[0] * 8, -1]),
}


def written_out(segments: Segments, window: int | None) -> Tensor:
    """Who sees whom, token by token: bool ``[L, L]``."""
    owner = [s for s, size in enumerate(segments.sizes) for _ in range(size)]
    first = [sum(segments.sizes[:s]) for s in range(len(segments.sizes))]
    depth = [sum(segments.sizes[a] for a in segments.path(s)[:-1]) + c - first[s] for c, s in enumerate(owner)]
    seen = torch.zeros(len(owner), len(owner), dtype=torch.bool)
    for q, s in enumerate(owner):
        for k, t in enumerate(owner):
            ahead = depth[q] - depth[k]
            block = segments.blocks is not None and segments.blocks[q] == segments.blocks[k] >= 0
            near = window is None or (ahead if segments.causal else abs(ahead)) < window
            seen[q, k] = t in segments.path(s) and near and (ahead >= 0 or block or not segments.causal)
    return seen


def dense(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, cap: float | None, sinks: Tensor | None) -> Tensor:
    """``[1, H, L, D]`` by one softmax in float64."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = q @ k.transpose(-1, -2) * 0.3
    scores = scores if cap is None else cap * torch.tanh(scores / cap)
    scores = scores.masked_fill(~seen, -math.inf)
    if sinks is not None:
        scores = torch.cat([scores, sinks.reshape(1, -1, 1, 1).expand(*scores.shape[:-1], 1)], -1)
    return scores.softmax(-1)[..., : k.shape[-2]] @ v


def tensors(length: int) -> tuple[Tensor, Tensor, Tensor]:
    chance = torch.Generator().manual_seed(length)
    return tuple(
        torch.randn(1, heads, length, 8, generator=chance, dtype=torch.float64, requires_grad=True)
        for heads in (4, 2, 2)
    )  # type: ignore[return-value]


def run(segments: Segments, x: tuple[Tensor, ...], window: int | None, **given: Any) -> Tensor:
    module: Any = SimpleNamespace(is_causal=True)
    out, _ = segment_attention(module, *x, None, scaling=0.3, sliding_window=window, segments=segments, **given)
    return out.transpose(1, 2)


@pytest.mark.parametrize("name", FOREST)
@pytest.mark.parametrize("window", [None, 1, 4, 10])
@pytest.mark.parametrize("special", ["plain", "cap", "sinks"])
def test_each_token_sees_its_ancestors_and_itself(name: str, window: int | None, special: str) -> None:
    """Values and gradients."""
    segments = Segments(*FOREST[name])
    x = tensors(sum(segments.sizes))
    cap = 2.0 if special == "cap" else None
    sinks = torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64) if special == "sinks" else None
    mine = run(segments, x, window, softcap=cap, s_aux=sinks)
    wanted = dense(*x, written_out(segments, window), cap, sinks)
    assert torch.allclose(mine, wanted, atol=1e-6)
    pull = torch.randn(mine.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for a, b in zip(
        torch.autograd.grad((mine * pull).sum(), x), torch.autograd.grad((wanted * pull).sum(), x), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("window", [None, 4])
def test_some_of_the_last_tokens_may_ask_alone(window: int | None) -> None:
    whole = Segments(*FOREST["tree"])
    some = Segments(*FOREST["tree"], asked=[1, 6, 0, 2, 3, 5])
    q, k, v = tensors(sum(whole.sizes))
    ends = [sum(whole.sizes[: s + 1]) for s in range(len(whole.sizes))]
    at = [c for end, asked in zip(ends, some.asked, strict=True) for c in range(end - asked, end)]
    wanted = dense(q, k, v, written_out(whole, window), None, None)[:, :, at]
    assert torch.allclose(run(some, (q[:, :, at], k, v), window), wanted, atol=1e-6)


@pytest.mark.parametrize("window", [None, 3, 6])
def test_tokens_of_an_image_see_each_other(window: int | None) -> None:
    blocks = torch.full((20,), -1)
    blocks[2:6], blocks[7:9], blocks[14:17] = 0, 1, 2
    segments = Segments([11, 3, 6], [-1, 0, -1], blocks=blocks)
    x = tensors(20)
    assert torch.allclose(run(segments, x, window), dense(*x, written_out(segments, window), None, None), atol=1e-6)


@pytest.mark.parametrize("window", [None, 3])
def test_tokens_of_an_encoder_see_their_row(window: int | None) -> None:
    segments = Segments([5, 9, 1, 7], [-1] * 4, causal=False)
    x = tensors(22)
    assert torch.allclose(run(segments, x, window), dense(*x, written_out(segments, window), None, None), atol=1e-6)


@pytest.mark.parametrize("name", FOREST)
@pytest.mark.parametrize("window", [None, 4])
def test_nothing_beyond_the_window_is_read(name: str, window: int | None) -> None:
    """What kernels of rows of different lengths are told: the last query is level with the last key."""
    segments = Segments(*FOREST[name])
    at, (queries, keys), most = segments.gathered(window, torch.zeros(()))
    assert most == (int(queries.diff().max()), int(keys.diff().max()))
    seen = written_out(segments, window)
    for s, (a, b) in enumerate(pairwise(keys)):
        rows = seen[queries[s] : queries[s + 1]]
        assert set(at[a:b].tolist()) == set(rows.any(0).nonzero()[:, 0].tolist())
        # Level at the end, and causal: each query sees one key more than the one before it, up to the window.
        level = torch.arange(b - a - len(rows) + 1, b - a + 1)
        assert torch.equal(rows[:, at[a:b]].sum(1), level.clamp(max=window or b - a))


def test_segments_of_like_shape_share_a_call() -> None:
    many = Segments([40, *[8] * 6], [-1, *[0] * 6])
    assert [len(c.members) for c in many.plan(None, torch.zeros(1))] in ([6, 1], [7])
    apart = Segments([4000, 4000, 9], [-1, 0, 0])
    assert max(len(c.members) for c in apart.plan(None, torch.zeros(1))) == 1


def test_without_segments_it_attends_as_sdpa_does() -> None:
    x = tensors(9)
    module: Any = SimpleNamespace(is_causal=True, num_key_value_groups=2)
    out, _ = segment_attention(module, *x, None, scaling=0.3)
    causal = torch.ones(9, 9, dtype=torch.bool).tril()
    assert torch.allclose(out.transpose(1, 2), dense(*x, causal, None, None), atol=1e-6)
    out, _ = segment_attention(module, *x, causal, scaling=0.3, softcap=2.0)
    assert torch.allclose(out.transpose(1, 2), dense(*x, causal, 2.0, None), atol=1e-6)


def test_a_row_of_padding_is_a_number_under_a_soft_cap() -> None:
    """Left padding: what stands before the first token sees nothing."""
    x = tensors(3)
    mask = torch.tensor([[False, False, False], [False, True, False], [False, True, True]])
    assert bool(torch.isfinite(attend(*x, mask, scale=None, causal=False, softcap=5.0)).all())
