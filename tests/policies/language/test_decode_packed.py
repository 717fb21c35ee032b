"""Prompts that join while others are written: what they say stays the same, and nothing is read twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.policies.language.test_generate import PROMPTS, forwards, padded

from rewardkit.policies.language import LanguagePolicy, Sampling
from rewardkit.policies.language.batch import Row
from rewardkit.policies.language.decode_cache import CHUNK
from rewardkit.policies.language.decode_packed import PackedDecoder

MANY = [*PROMPTS, "hello", "the dog", "fine, thank you! how are you?", "and the mat", "you"]
WILD = Sampling(max_new_tokens=CHUNK + 8, temperature=3.0)


def test_prompts_that_join_later_say_what_they_say_in_ordinary_batches(family: LanguagePolicy) -> None:
    """Rows begin at different times, end at different times, and outgrow the room that they began with."""
    family.max_tokens = 260
    rollout = family.sample(MANY, n=2, sampling=WILD, seed=3)
    lengths = rollout.mask.sum(1)
    assert lengths.min() < 20
    assert lengths.max() > CHUNK
    with torch.no_grad():
        assert torch.allclose(family.evaluate(rollout)["logps"], rollout["old_logps"], atol=2e-5)
    family.max_tokens = 10_000
    wide = family.sample(MANY, n=2, sampling=WILD, seed=3)
    assert wide.inputs == rollout.inputs
    assert padded(family).sample(MANY, n=2, sampling=WILD, seed=3).inputs == rollout.inputs


@pytest.mark.parametrize("n", [1, 3])
def test_the_batch_stays_full_and_within_its_budget(n: int, make: Callable[..., LanguagePolicy]) -> None:
    policy = make(keep_start=False, max_tokens=500)
    shapes = forwards(policy)
    wild = Sampling(max_new_tokens=40, temperature=3.0)
    rollout = policy.sample(MANY * 3, n=n, sampling=wild, seed=0)
    sampled, rows = int(rollout.mask.sum()), len(rollout)
    reads = [at for at, (_, width) in enumerate(shapes) if width > 1]
    assert 1 < len(reads) < len(MANY) * 3, "prompts join one by one, or all at once"
    # The first token of a row comes with its prompt; of the others few are computed in vain.
    steps = [batch for batch, width in shapes if width == 1]
    assert sampled - rows <= sum(steps) <= 1.12 * (sampled - rows)
    assert max(steps) * 40 <= 500
    # While prompts wait, the mean step has four fifths of the most rows that there is room for.
    others_wait = [batch for batch, width in shapes[: reads[-1]] if width == 1]
    assert sum(others_wait) >= 0.8 * len(others_wait) * max(steps)


def test_prompts_take_the_places_of_those_that_are_done(make: Callable[..., LanguagePolicy]) -> None:
    policy = make(keep_start=False)
    prompts = [Row(policy.codec.prompt(p), []) for p in MANY]
    assert policy._packs(prompts[0])
    with torch.no_grad():
        decoder = policy._decoder(packs=True)
        assert isinstance(decoder, PackedDecoder)
        decoder.add(prompts[:4], [[0], [1], [2], [3]], [9] * 4)
        decoder.step([5, 6, 7, 8])
        decoder.keep([0, 2, 3])
        decoder.add(prompts[4:5], [[4]], [9])
        assert decoder.alive == [0, 4, 2, 3]
        assert decoder.cache.prompts[0][0].shape[0] == 4
        decoder.step([5, 6, 7, 8])
        decoder.keep([2])
        decoder.step([5])
        assert decoder.cache.prompts[0][0].shape[0] == 1
        assert decoder.cache.prompts[0][0].shape[2] == len(prompts[2].prompt)
        ids = torch.tensor([[*prompts[2].prompt, 7, 7, 5]])
        alone = policy._core(input_ids=ids, use_cache=False).logits[:, -1]
    assert torch.allclose(decoder.logits, alone, atol=1e-4)


def test_a_prompt_that_exceeds_the_budget_is_read_by_itself(make: Callable[..., LanguagePolicy]) -> None:
    policy = make(keep_start=False)
    decoder = policy._decoder(packs=True)
    assert decoder.admits([(300, 50), (2, 1)], 4, 100) == 1
    assert decoder.admits([(30, 5), (30, 5), (30, 5)], 4, 100) == 2
