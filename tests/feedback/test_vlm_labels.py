"""Two-stage comparisons of pictures: what is asked, in what order, and which answers count."""

from __future__ import annotations

from typing import Any

import pytest

from rewardkit.feedback.vlm_labels import DECIDE, vlm_pairwise_labels
from rewardkit.types import Sample

PAIRS = [(Sample("p", f"a{i}"), Sample("p", f"b{i}")) for i in range(4)]


def test_it_reasons_first_and_decides_in_view_of_that() -> None:
    heard: list[list[list[dict[str, Any]]]] = []

    def ask(dialogues: list[list[dict[str, Any]]]) -> list[str]:
        heard.append(dialogues)
        if len(heard) == 1:
            return [f"reason {i}" for i in range(4)]
        return ["FIRST", "so: second.", "Cannot tell", "first or second, who knows"]

    found = vlm_pairwise_labels(PAIRS, ask, "reach the cup", picture=lambda s: s.output.upper())
    assert [j.rank for j in found.judgements] == [(0, 1), (1, 0), (0, 0)]
    assert found.unread == [3]
    assert found.judgements[2].tied
    assert found.judgements[0].note == "reason 0"
    images = [p["image"] for p in heard[0][0][0]["content"] if p["type"] == "image"]
    assert images == ["A0", "B0"]
    assert "reach the cup" in heard[0][0][0]["content"][-1]["text"]
    assert [m["role"] for m in heard[1][0]] == ["user", "assistant", "user"]
    assert heard[1][0][-1]["content"] == DECIDE


@pytest.mark.parametrize("answer", ["", "neither", "The first image is nearer.\nBoth are fine."])
def test_what_cannot_be_read_is_no_comparison(answer: str) -> None:
    found = vlm_pairwise_labels(PAIRS[:1], lambda d: [answer] * len(d), "x")
    assert (found.judgements, found.unread) == ([], [0])
    assert vlm_pairwise_labels([], lambda d: [], "x") == ([], [])
