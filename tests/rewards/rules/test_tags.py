"""Tags: once each, closed, in order."""

from __future__ import annotations

import pytest
import torch

from rewardkit.rewards.rules.tags import FormatTags, well_formed
from rewardkit.types import Rollout, Sample


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("<think>a</think><answer>b</answer>", True),
        ("so <think></think> then <answer>b</answer>.", True),
        ("<answer>b</answer><think>a</think>", False),
        ("<think>a<answer>b</answer></think>", False),
        ("<think>a</think><answer>b", False),
        ("<think>a</think><answer>b</answer><answer>c</answer>", False),
        ("", False),
    ],
)
def test_tags_are_opened_and_closed_once_in_order(text: str, right: bool) -> None:
    assert well_formed(text, ("think", "answer")) is right
    scores = FormatTags(wrong=-2.0)(Rollout([Sample("x", text), Sample("x", None, ended="failed")], torch.ones(2, 1)))
    assert scores.outcome.tolist() == [1.0 if right else -2.0, -2.0]


def test_a_single_name_is_no_list() -> None:
    with pytest.raises(ValueError, match="list of tag names"):
        FormatTags("answer")  # type: ignore[arg-type]
