"""Prompt sets."""

from __future__ import annotations

import pytest

from rewardkit.loops import PromptSet
from rewardkit.types import Sample


def drawn(prompts: PromptSet, n: int) -> list[str]:
    return [s.prompt for s in prompts.draw(n)]


def test_every_prompt_once_an_epoch_and_each_epoch_in_its_own_order() -> None:
    prompts = PromptSet("abcdefgh", seed=1)
    first, second = drawn(prompts, 8), drawn(prompts, 8)
    assert sorted(first) == sorted(second) == list("abcdefgh")
    assert first != second
    assert prompts.epoch == 2
    assert drawn(PromptSet("abcdefgh", seed=1), 8) == first != drawn(PromptSet("abcdefgh", seed=2), 8)


def test_state_resumes_in_the_middle_of_an_epoch() -> None:
    """R65."""
    one = PromptSet("abcde", seed=3)
    one.draw(7)
    state = one.state_dict()
    expected = drawn(one, 9)
    two = PromptSet("abcde", seed=3)
    two.load_state_dict(state)
    assert drawn(two, 9) == expected
    with pytest.raises(ValueError, match="seed 3"):
        PromptSet("abcde", seed=4).load_state_dict(state)


def test_outputs_are_dropped_and_hidden_facts_kept() -> None:
    found = PromptSet([Sample("x", "leaked", source="s", hidden={"gold": 1})]).draw(1)[0]
    assert (found.output, found.source, found.hidden) == (None, "s", {"gold": 1})


def test_no_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        PromptSet([])
