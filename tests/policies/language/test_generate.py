"""What a language policy samples, and what it says about it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from rewardkit.policies.language import LanguagePolicy, Sampling, generate
from rewardkit.policies.language.generate import row_seed
from rewardkit.types import Rollout, Sample

PROMPTS = ["the cat sat", "how are you today? fine, thank you! and hello to the dog", "x"]
SIX = Sampling(max_new_tokens=6)


def brute_force(policy: LanguagePolicy, prompt: str, n: int) -> list[int]:
    """Argmax with a full forward pass a token, one row, no cache, no padding."""
    ids = policy.codec.prompt(prompt)
    out: list[int] = []
    for _ in range(n):
        out.append(int(policy._core(input_ids=torch.tensor([ids + out]), use_cache=False).logits[0, -1].argmax()))
        if out[-1] in policy.codec.eos_ids:
            break
    return out


def test_greedy_equals_a_loop_without_cache_batch_or_padding_in_every_family(family: LanguagePolicy) -> None:
    """R24: left padding, the cache, sliding windows and dropped rows change nothing."""
    rollout = family.sample(PROMPTS, sampling=Sampling(max_new_tokens=12, greedy=True))
    with torch.no_grad():
        assert rollout.inputs["output_ids"] == [brute_force(family, p, 12) for p in PROMPTS]


def test_sampled_logps_equal_evaluated_ones_in_every_family(family: LanguagePolicy) -> None:
    """R30, R38: old log-probs equal a recomputation before the first update, whatever truncates the draw."""
    for options in ({}, {"temperature": 0.7, "top_p": 0.8, "top_k": 20}):
        rollout = family.sample(PROMPTS, n=3, sampling=Sampling(max_new_tokens=12, **options), seed=0)
        with torch.no_grad():
            found = family.evaluate(rollout)["logps"]
        assert torch.allclose(found, rollout["old_logps"], atol=1e-4)


def padded(policy: LanguagePolicy) -> LanguagePolicy:
    """The policy as it is where the model takes no packed rows."""
    policy._packs = lambda row: False  # type: ignore[method-assign]
    return policy


def forwards(policy: LanguagePolicy) -> list[tuple[int, int]]:
    """The shapes of the ids that the model is given from now on."""
    rows: list[tuple[int, int]] = []
    policy.sample(["x"], sampling=SIX)  # the probes are behind it
    layer = policy._core.get_input_embeddings()
    layer.register_forward_hook(lambda module, given, out: rows.append(tuple(given[0].shape)))
    return rows


@pytest.mark.parametrize("packs", [True, False])
def test_a_group_equals_its_members_sampled_alone(packs: bool, make: Callable[..., LanguagePolicy]) -> None:
    """One prefill for the group, and rows that end early, change no member."""
    policy = make(keep_start=False) if packs else padded(make(keep_start=False))
    wild = Sampling(max_new_tokens=20, temperature=3.0)
    together = policy.sample(PROMPTS[:1], n=8, sampling=wild, seed=37)
    lengths = together.mask.sum(1)
    assert lengths[0] < 12 < lengths[1:].max(), "the first row ends early, so that the others move up"
    for k in range(8):
        [alone] = policy._complete([policy.codec.prompt(PROMPTS[0])], 1, wild, [row_seed(37, 0, k)], {})
        assert alone.ids == together.inputs["output_ids"][k]


@pytest.mark.parametrize("packs", [True, False])
def test_each_prompt_is_read_once_a_group_and_finished_rows_leave(
    packs: bool, make: Callable[..., LanguagePolicy]
) -> None:
    policy = make(keep_start=False) if packs else padded(make(keep_start=False))
    rows = forwards(policy)
    rollout = policy.sample(PROMPTS, n=8, sampling=Sampling(max_new_tokens=20, temperature=3.0), seed=0)
    lengths, sizes = rollout.mask.sum(1), [len(p) for p in rollout.inputs["prompt_ids"][::8]]
    assert rows[0] == ((1, sum(sizes)) if packs else (3, max(sizes)))
    assert lengths.min() < 20, "no row ended early: nothing to drop"
    for step, (batch, width) in enumerate(rows[1:], start=1):
        assert width == 1
        waiting = int((lengths > step).sum())
        assert waiting <= batch <= waiting / 0.9 + 1


def test_what_prompts_begin_with_in_common_is_read_once(make: Callable[..., LanguagePolicy]) -> None:
    policy = make(keep_start=False)
    prompts = [PROMPTS[1], PROMPTS[1] + " and you?", PROMPTS[1]]
    alone = [policy.sample([p], sampling=SIX, seed=[3]).inputs["output_ids"][0] for p in prompts]
    rows = forwards(policy)
    rollout = policy.sample(prompts, sampling=SIX, seed=[3, 3, 3])
    assert rows[0] == (1, max(len(p) for p in rollout.inputs["prompt_ids"]))
    assert rollout.inputs["output_ids"] == alone


def test_a_row_depends_on_the_seed_and_its_place_not_on_its_neighbours(make: Callable[..., LanguagePolicy]) -> None:
    policy = make(keep_start=False)

    def outputs(prompts: list[str], n: int, seed: int) -> list[list[int]]:
        return policy.sample(prompts, n=n, sampling=SIX, seed=seed).inputs["output_ids"]

    base = outputs(PROMPTS, 2, 7)
    assert outputs(PROMPTS, 2, 7) == base
    assert outputs(PROMPTS[:1], 2, 7) == base[:2]
    assert outputs([PROMPTS[0], "something else altogether", "y"], 3, 7)[:2] == base[:2]
    assert outputs(PROMPTS, 2, 8) != base
    policy.max_tokens = 1
    assert outputs(PROMPTS, 2, 7) == base


def test_a_request_with_a_seed_of_its_own_depends_on_nothing_else(make: Callable[..., LanguagePolicy]) -> None:
    policy = make(keep_start=False)
    together = policy.sample(PROMPTS, n=2, sampling=SIX, seed=[5, 6, 7])
    assert together.how["drawn"]["seed"] == [5, 6, 7]
    for i, (prompt, seed) in enumerate(zip(PROMPTS, [5, 6, 7], strict=True)):
        alone = policy.sample([prompt], n=2, sampling=SIX, seed=seed)
        assert alone.inputs["output_ids"] == together.inputs["output_ids"][2 * i : 2 * i + 2]
    with pytest.raises(ValueError, match="seed has 2 entries for 3 starts"):
        policy.sample(PROMPTS, seed=[1, 2])


def test_seeded_sampling_leaves_the_global_generator_alone(make: Callable[..., LanguagePolicy]) -> None:
    policy = make(keep_start=False)
    before = torch.random.get_rng_state()
    policy.sample(PROMPTS, sampling=SIX, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)


def force(policy: LanguagePolicy, monkeypatch: pytest.MonkeyPatch, script: list[int]) -> None:
    """Make the model say ``script`` whatever it is given."""
    inner, step = generate.pick, iter(script)

    def forced(logits: torch.Tensor, uniform: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
        logits = torch.full_like(logits, -30.0)
        logits[:, next(step)] = 30.0
        return inner(logits, uniform, sampling)

    monkeypatch.setattr(generate, "pick", forced)


def test_every_eos_of_the_generation_config_ends_a_completion(
    make: Callable[..., LanguagePolicy], tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R14."""
    plain = make(keep_start=False)
    plain._core.generation_config.eos_token_id = [tokenizer.eos_token_id, 17]
    policy = LanguagePolicy(plain.module, tokenizer, keep_start=False)
    force(policy, monkeypatch, [40, 17, 41, 42])
    rollout = policy.sample(["x"], sampling=SIX, seed=0)
    assert rollout.inputs["output_ids"] == [[40, 17]]
    assert rollout.samples[0].ended == "done"


def test_a_generated_eos_is_trained_even_where_pad_is_eos(
    make: Callable[..., LanguagePolicy], tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R13."""
    import copy

    same = copy.deepcopy(tokenizer)
    same.pad_token = same.eos_token
    policy = LanguagePolicy(make(keep_start=False).module, same, keep_start=False)
    force(policy, monkeypatch, [40, same.eos_token_id, 41])
    rollout = policy.sample(["x"], sampling=SIX, seed=0)
    assert rollout.mask.tolist() == [[1.0, 1.0]]
    encoded = policy.encode([Sample("x", "hello")])
    assert encoded.inputs["output_ids"][0][-1] == same.eos_token_id
    assert encoded.mask.all()


def test_cut_is_told_apart_from_done(
    make: Callable[..., LanguagePolicy], tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make(keep_start=False)
    with monkeypatch.context() as patch:
        force(policy, patch, [40, 41, tokenizer.eos_token_id])
        assert policy.sample(["x"], sampling=Sampling(max_new_tokens=2), seed=0).samples[0].ended == "cut"
    force(policy, monkeypatch, [40, 41, tokenizer.eos_token_id])
    done = policy.sample(["x"], sampling=Sampling(max_new_tokens=3), seed=0)
    assert done.samples[0].ended == "done"
    assert done.samples[0].output == tokenizer.decode([40, 41])


def test_stop_strings_end_a_completion_and_leave_the_text(
    make: Callable[..., LanguagePolicy], tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R19: the sampled ids stay, the text ends before the string, also where it spans tokens."""
    policy = make(keep_start=False)
    ids = tokenizer("hello to the dog", add_special_tokens=False).input_ids
    force(policy, monkeypatch, ids * 2)
    rollout = policy.sample(["x"], sampling=Sampling(max_new_tokens=16, stop=("o the",)), seed=0)
    assert rollout.samples[0].output == "hello t"
    assert rollout.samples[0].ended == "done"
    kept = rollout.inputs["output_ids"][0]
    assert kept == ids[: len(kept)]
    assert "o the" in tokenizer.decode(kept)
    assert rollout.mask.sum() == len(kept)


def test_only_sampled_ids_are_trained_and_all_of_them(make: Callable[..., LanguagePolicy]) -> None:
    """R19: no re-tokenisation; one weight and one log-prob for each sampled id."""
    policy = make(keep_start=False)
    rollout = policy.sample(PROMPTS, n=2, sampling=SIX, seed=0)
    for i, ids in enumerate(rollout.inputs["output_ids"]):
        assert int(rollout.mask[i].sum()) == len(ids)
        assert (rollout["old_logps"][i, : len(ids)] < 0).all()
        assert (rollout["old_logps"][i, len(ids) :] == 0).all()


def test_rows_of_a_prompt_are_a_group_and_cost_counts_the_prompt_once(make: Callable[..., LanguagePolicy]) -> None:
    policy = make(keep_start=False)
    start = Sample("the cat", source="cat?", hidden={"gold": 3})
    rollout = policy.sample([start, "x"], n=2, sampling=SIX, seed=0)
    assert rollout.group.tolist() == [0, 0, 1, 1]
    assert rollout.samples[0].hidden == {"gold": 3}
    assert rollout.samples[0].asked == "cat?"
    prompts = len(policy.codec.prompt("the cat")) + len(policy.codec.prompt("x"))
    assert rollout.cost.calls == 4
    assert rollout.cost.tokens == prompts + int(rollout.mask.sum())
    assert rollout.cost.seconds > 0
    assert rollout.how["drawn"]["max_new_tokens"] == 6
    assert rollout.versions == {"live": policy.version}


def test_sampling_is_in_evaluation_mode_and_puts_every_mode_back(make: Callable[..., LanguagePolicy]) -> None:
    """R40."""
    policy = make("gpt2", {"resid_pdrop": 0.5}, keep_start=False)
    policy.module.train()
    policy.module.transformer.h[0].eval()
    rollout = policy.sample(PROMPTS, sampling=SIX, seed=0)
    assert policy.module.training
    assert not policy.module.transformer.h[0].training
    policy.module.eval()
    assert policy.sample(PROMPTS, sampling=SIX, seed=0).inputs == rollout.inputs
    assert not rollout["old_logps"].requires_grad


def test_the_end_of_the_context_cuts(make: Callable[..., LanguagePolicy], monkeypatch: pytest.MonkeyPatch) -> None:
    policy = make(keep_start=False, max_length=12)
    force(policy, monkeypatch, [40] * 20)
    rollout = policy.sample(["the cat"], sampling=Sampling(max_new_tokens=50), seed=0)
    assert len(rollout.inputs["prompt_ids"][0]) + len(rollout.inputs["output_ids"][0]) == 12
    assert rollout.samples[0].ended == "cut"


def test_a_row_at_the_end_of_the_context_is_stepped_no_further(make: Callable[..., LanguagePolicy]) -> None:
    """Learned positions end with the context; eleven rows that go on do not take a full one along."""
    policy = make("gpt2", {"max_position_embeddings": 32}, keep_start=False)
    starts = ["z" * 28, *(f"{c}z" for c in "abcdefghijk")]
    rollout = policy.sample(starts, sampling=Sampling(max_new_tokens=20, greedy=True), seed=0)
    lengths = [(len(p), len(o)) for p, o in zip(*rollout.inputs.values(), strict=True)]
    assert lengths[0] == (29, 3)
    assert [p for p, _ in lengths[1:]] == [3] * 11
    assert max(o for _, o in lengths) > 3
    for start, ids in zip(starts, rollout.inputs["output_ids"], strict=True):
        assert ids == brute_force(policy, start, len(ids))


def test_a_prompt_over_the_context_is_refused_or_shortened(make: Callable[..., LanguagePolicy]) -> None:
    policy = make(keep_start=False, max_length=12)
    with pytest.raises(ValueError, match=r"start 1 has \d+ tokens and the context is 12"):
        policy.sample(["x", PROMPTS[1]], sampling=SIX)
    shorter = make(keep_start=False, max_length=12, truncation="left")
    rollout = shorter.sample([PROMPTS[1]], sampling=SIX, seed=0)
    ids = rollout.inputs["prompt_ids"][0]
    whole = shorter.codec.prompt(PROMPTS[1])
    assert len(ids) == 6
    assert ids == whole[:1] + whole[-5:]


def test_a_cut_output_is_continued_and_its_beginning_not_trained(make: Callable[..., LanguagePolicy]) -> None:
    policy = make(keep_start=False)
    rollout = policy.sample([Sample("the cat", " sat on", ended="cut")], n=2, sampling=SIX, seed=0)
    prefix = policy.encode([Sample("the cat", " sat on", ended="cut")]).inputs["output_ids"][0]
    assert rollout.inputs["output_ids"][0][: len(prefix)] == prefix
    assert (rollout.mask[:, : len(prefix)] == 0).all()
    assert rollout.samples[0].output.startswith(" sat on")
    with torch.no_grad():
        assert torch.allclose(policy.evaluate(rollout)["logps"], rollout["old_logps"], atol=1e-4)
    with pytest.raises(ValueError, match="ended='cut'"):
        policy.sample([Sample("the cat", " sat on")])


def test_a_stop_string_in_the_beginning_that_is_continued_does_not_cut_it(
    make: Callable[..., LanguagePolicy], tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make(keep_start=False)
    force(policy, monkeypatch, tokenizer("hello to the dog", add_special_tokens=False).input_ids)
    start = Sample("x", "one to two, ", ended="cut")
    rollout = policy.sample([start], sampling=Sampling(max_new_tokens=16, stop=(" to",)), seed=0)
    assert rollout.samples[0].output == "one to two, hello"
    assert rollout.samples[0].ended == "done"


def test_a_full_row_is_continued_with_a_shorter_prompt(make: Callable[..., LanguagePolicy]) -> None:
    """truncation="left" makes room for the new tokens, as for a prompt without a beginning."""
    policy = make(keep_start=False, max_length=18, truncation="left")
    start = Sample(PROMPTS[1], " the cat", ended="cut")
    beginning = policy.encode([start]).inputs["output_ids"][0]
    whole = policy.codec.prompt(start.prompt)
    assert len(whole) + len(beginning) == 18
    rollout = policy.sample([start], sampling=SIX, seed=0)
    [prompt] = rollout.inputs["prompt_ids"]
    assert len(prompt) == 18 - 6 - len(beginning)
    assert prompt == whole[:1] + whole[1 - len(prompt) :]
    assert rollout.inputs["output_ids"][0][: len(beginning)] == beginning
    with pytest.raises(ValueError, match="the context is 18"):
        policy.sample([Sample("x", "z" * 30, ended="cut")], sampling=SIX)


def test_messages_are_answered_with_a_message_that_encodes_to_the_sampled_ids(
    make: Callable[..., LanguagePolicy], tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = make(keep_start=False)
    ids = [*tokenizer("hello", add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    force(policy, monkeypatch, ids)
    rollout = policy.sample([[{"role": "user", "content": "the cat"}]], sampling=Sampling(max_new_tokens=9), seed=0)
    assert rollout.samples[0].output == [{"role": "assistant", "content": "hello"}]
    assert rollout.inputs["output_ids"] == [ids]
    assert policy.encode(rollout.samples).inputs == rollout.inputs


def test_rollouts_of_several_calls_join(make: Callable[..., LanguagePolicy]) -> None:
    policy = make(keep_start=False)
    longer = [Sample(p, " and hello", ended="cut") for p in PROMPTS]
    calls = [policy.sample(starts, n=2, sampling=SIX, seed=seed) for seed, starts in enumerate((PROMPTS, longer))]
    assert calls[0].mask.shape[1] < calls[1].mask.shape[1]
    joined = Rollout.cat(calls, regroup=True)
    with torch.no_grad():
        assert torch.allclose(policy.evaluate(joined)["logps"], joined["old_logps"], atol=1e-4)
