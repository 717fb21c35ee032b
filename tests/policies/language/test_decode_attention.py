"""Attention of one token a row against one softmax over everything that it sees, written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rewardkit.policies.language.decode_attention import Seats, attend_rows


def one_row(query: Tensor, keys: Tensor, values: Tensor, cap: float | None, sinks: Tensor | None) -> Tensor:
    """``[H, D]`` over keys ``[H_kv, K, D]``."""
    keys, values = (x.repeat_interleave(len(query) // len(x), 0) for x in (keys, values))
    scores = torch.einsum("hd,hkd->hk", query, keys) * 0.3
    scores = scores if cap is None else cap * torch.tanh(scores / cap)
    if sinks is not None:
        scores = torch.cat([scores, sinks[:, None]], -1)
    return torch.einsum("hk,hkd->hd", scores.softmax(-1)[:, : keys.shape[1]], values)


@pytest.mark.parametrize("places", [[0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 2], [0, 1, 2], [1]])
@pytest.mark.parametrize("special", ["plain", "cap", "sinks"])
def test_a_row_sees_its_prompt_and_its_own_tokens(places: list[int], special: str) -> None:
    """Prompts and rows of different lengths, prompts with different numbers of rows and with none."""
    chance = torch.Generator().manual_seed(len(places))
    prompts, lengths, begins = 3, [7, 4, 6], [2, 0, 1, 3][: len(places)]

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=chance, dtype=torch.float64)

    query, far, near = draw(len(places), 4, 1, 8), (draw(prompts, 2, 7, 8), draw(prompts, 2, 7, 5)), None
    near = draw(len(places), 2, 5, 8), draw(len(places), 2, 5, 5)
    hidden = torch.arange(7) < torch.tensor([7 - n for n in lengths])[:, None]
    late = torch.arange(5) < torch.tensor(begins)[:, None]
    masks = tuple(torch.zeros(x.shape, dtype=torch.float64).masked_fill(x, -math.inf) for x in (hidden, late))
    cap = 2.0 if special == "cap" else None
    sinks = draw(4) if special == "sinks" else None
    seats = Seats.of(places, prompts, query.device)
    found = attend_rows(
        query, far, near, seats, (masks[0][:, None], masks[1][:, None]),
        scale=0.3, softcap=cap, sinks=sinks,
    )  # fmt: skip
    assert found.shape == (len(places), 1, 4, 5)
    for row, (place, begin) in enumerate(zip(places, begins, strict=True)):
        keys, values = (
            torch.cat([p[place, :, 7 - lengths[place] :], r[row, :, begin:]], 1) for p, r in zip(far, near, strict=True)
        )
        assert torch.allclose(found[row, 0], one_row(query[row, :, 0], keys, values, cap, sinks), atol=1e-9)


def test_rows_that_fill_all_seats_are_not_moved() -> None:
    assert Seats.of([0, 0, 1, 1], 2, torch.device("cpu")) is None
    assert Seats.of([0, 0, 2, 2], 3, torch.device("cpu")) is not None
