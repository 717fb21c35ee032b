"""A language model one token at a time: the same model, the same draws, caches that fork and reorder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rewardkit.policies.language import LanguagePolicy, Sampling
from rewardkit.policies.language.sampling import truncate
from rewardkit.protocols import State, Stepwise
from rewardkit.types import Sample

PROMPTS = ["the cat sat", "how are you today? fine, thank you! and hello to the dog", "x"]


def walk(policy: LanguagePolicy, state: Any, chosen: Tensor | None = None) -> tuple[Any, Tensor]:
    """To the end; log-probs ``[N, T]``. ``chosen`` ``[N, T]`` are tokens to say instead of drawn ones."""
    logps = []
    while not bool(state.done.all()):
        actions, said = policy.propose(state)
        assert said is not None
        state = policy.step(state, actions[:, 0] if chosen is None else chosen[:, len(logps)])
        logps.append(said[:, 0])
    return state, torch.stack(logps, 1)


def test_it_follows_the_protocol(make: Callable[..., LanguagePolicy]) -> None:
    policy = make(keep_start=False)
    state = policy.start(PROMPTS, seed=0)
    assert isinstance(policy, Stepwise)
    assert isinstance(state, State)
    assert (len(state), state.done.tolist()) == (3, [False] * 3)
    assert [s.output for s in policy.look(state)] == ["", "", ""]


def test_log_probs_of_the_steps_are_evaluated_ones_in_every_family(family: LanguagePolicy) -> None:
    options = Sampling(max_new_tokens=9, temperature=0.7, top_p=0.8)
    with torch.no_grad():
        state, logps = walk(family, family.start(PROMPTS, sampling=options, seed=1))
        rollout = family.sample(PROMPTS, sampling=options, seed=0)
        rollout.inputs["output_ids"] = state.ids
        rollout.mask = torch.zeros_like(logps)
        torch.testing.assert_close(logps, family.evaluate(rollout)["logps"], atol=2e-5, rtol=1e-5)


def test_a_seed_draws_from_the_distribution_that_sample_draws_from(make: Callable[..., LanguagePolicy]) -> None:
    """Frequencies of the first token among 4000 draws, against the truncated distribution at the temperature."""
    policy = make(keep_start=False)
    options = Sampling(max_new_tokens=1, temperature=2.0, top_p=0.6)
    state = policy.start(["x"], sampling=options, seed=3)
    with torch.no_grad():
        drawn = policy.propose(state, 4000)[0][0]
        sampled = policy.sample(["x"], 4000, sampling=options, seed=4)
    ids = torch.tensor([i[0] for i in sampled.inputs["output_ids"]])
    counts = torch.stack([torch.bincount(x, minlength=400) for x in (drawn, ids)]).double()
    kept = counts.sum(0) >= 10
    a, b = counts[:, kept]
    chi2, freedom = float(((a - b).square() / (a + b)).sum()), int(kept.sum()) - 1
    assert freedom > 5
    assert chi2 < freedom + 4 * (2 * freedom) ** 0.5
    assert state.decoder is not None
    left = truncate((state.decoder.logits / options.temperature).log_softmax(-1), options)[0].isfinite()
    assert bool(left[drawn].all())
    assert not bool(left.all())


def test_a_seed_fixes_the_draws_and_leaves_the_global_generator_alone(make: Callable[..., LanguagePolicy]) -> None:
    policy, options = make(keep_start=False), Sampling(max_new_tokens=6)
    before = torch.random.get_rng_state()
    one, two, other = (walk(policy, policy.start(PROMPTS, sampling=options, seed=s))[0].ids for s in (5, 5, 6))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert one == two
    assert one != other


def test_select_forks_drops_and_reorders_the_cache_too_in_every_family(family: LanguagePolicy) -> None:
    """What each row predicts next is what a model reading it afresh predicts, and the old state stays as it was."""
    script = torch.randint(10, 60, (3, 6), generator=torch.Generator().manual_seed(0))
    options = Sampling(max_new_tokens=12)
    with torch.no_grad():
        state = family.start(PROMPTS, sampling=options)
        for t in range(2):
            state = family.step(state, script[:, t])
        order = torch.tensor([2, 0, 0, 2])
        forked = state.select(order)
        branches = torch.tensor([11, 22, 33, 44])
        forked = family.step(forked, branches)
        forked = family.step(forked, branches + 1)
        plain = family.step(state, script[:, 2])
        again = family.step(state, script[:, 3])
        for one in (forked, plain, again):
            assert one.decoder is not None
            for row, ids in enumerate(one.ids):
                prompt = one.starts[row][1]
                whole = family._core(input_ids=torch.tensor([prompt + ids]), use_cache=False).logits[0, -1]
                torch.testing.assert_close(one.decoder.logits[row], whole, atol=2e-4, rtol=1e-4)
    want = [[*script[i, :2].tolist(), b, b + 1] for i, b in zip(order.tolist(), branches.tolist(), strict=True)]
    assert forked.ids == want
    assert [s.prompt for s in family.look(forked)] == [PROMPTS[i] for i in order]


def test_rows_end_by_eos_stop_string_or_limit_and_then_stay(
    make: Callable[..., LanguagePolicy], tokenizer: Any
) -> None:
    policy = make(keep_start=False)
    hello = tokenizer("hello to the", add_special_tokens=False).input_ids
    eos = tokenizer.eos_token_id
    options = Sampling(max_new_tokens=len(hello) + 2, stop=("to",))
    state = policy.start(PROMPTS, sampling=options, seed=0)
    chosen = torch.tensor([[*hello, 40, 40], [40, eos] + [41] * len(hello), [40] * (len(hello) + 2)])
    with torch.no_grad():
        state, logps = walk(policy, state, chosen)
    assert state.done.all()
    looked = policy.look(state)
    assert [s.ended for s in looked] == ["done", "done", "cut"]
    assert looked[0].output == "hello "
    assert state.ids[1] == [40, eos]
    assert len(state.ids[2]) == len(hello) + 2
    assert not logps[1, 2:].any(), "a finished row says nothing more"
    assert policy.step(state, chosen[:, 0]).ids == state.ids
    assert [s.output for s in policy.look(state.select(torch.tensor([2, 0])))] == [looked[2].output, "hello "]


def test_partial_samples_are_continued(make: Callable[..., LanguagePolicy]) -> None:
    policy = make(keep_start=False)
    start = Sample("the cat", " sat on", ended="cut")
    state = policy.start([start], sampling=Sampling(max_new_tokens=3), seed=0)
    assert policy.look(state)[0].output == " sat on"
    with torch.no_grad():
        state, _ = walk(policy, state)
    [rollout] = [policy.sample([start], sampling=Sampling(max_new_tokens=3, greedy=True))]
    assert policy.look(state)[0].output.startswith(" sat on")
    assert len(rollout.inputs["output_ids"][0]) <= 3 + len(state.starts[0][2])


def test_greedy_is_sample_and_has_no_log_probs(make: Callable[..., LanguagePolicy]) -> None:
    policy, options = make(keep_start=False), Sampling(max_new_tokens=5, greedy=True)
    state = policy.start(PROMPTS, sampling=options)
    with torch.no_grad():
        while not state.done.all():
            actions, logps = policy.propose(state)
            assert logps is None
            state = policy.step(state, actions[:, 0])
    assert state.ids == policy.sample(PROMPTS, sampling=options).inputs["output_ids"]


def test_gradients_reach_the_weights_through_the_cache(make: Callable[..., LanguagePolicy]) -> None:
    policy, options = make(keep_start=False), Sampling(max_new_tokens=4)
    rollout = policy.sample(PROMPTS, sampling=options, seed=0)
    ids = torch.tensor([(i + [0] * 4)[:4] for i in rollout.inputs["output_ids"]])
    weight = policy._core.model.layers[0].self_attn.k_proj.weight
    [want] = torch.autograd.grad(policy.evaluate(rollout)["logps"].sum(), [weight])
    state, total = policy.start(PROMPTS, sampling=options), torch.zeros(())
    for t in range(4):
        live = (~state.done).nonzero()[:, 0]
        assert state.decoder is not None
        said = state.decoder.logits.log_softmax(-1).gather(-1, ids[live, t][:, None])
        total, state = total + said.sum(), policy.step(state, ids[:, t])
    [found] = torch.autograd.grad(total, [weight])
    torch.testing.assert_close(found, want, atol=1e-4, rtol=1e-3)


def test_the_adapter_s_views_step_with_their_own_weights(lora: Callable[..., LanguagePolicy]) -> None:
    policy, options = lora(), Sampling(max_new_tokens=3)
    with torch.no_grad():
        for name, p in policy.module.named_parameters():
            if "lora_B" in name:
                p.normal_(generator=torch.Generator().manual_seed(0))
        script = torch.full((3,), 40)
        firsts = []
        for view in ("live", "adapter_off"):
            state = policy.at(view).step(policy.at(view).start(PROMPTS, sampling=options), script)
            assert state.decoder is not None
            firsts.append(state.decoder.logits)
    assert not torch.allclose(*firsts)
