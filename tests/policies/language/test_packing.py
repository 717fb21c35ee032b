"""Packed rows give the values and gradients of rows by themselves, or the model says that it cannot take them."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from tests.policies.language.conftest import FAMILIES, build
from torch import Tensor

from rewardkit.objectives.preference import dpo
from rewardkit.policies.language import LanguagePolicy, packing
from rewardkit.policies.language.attention import NAME
from rewardkit.policies.language.critic import Critic
from rewardkit.policies.language.narrow import last_layer
from rewardkit.training.learner import Learner
from rewardkit.training.reference import attach_reference
from rewardkit.training.term import Term
from rewardkit.types import Rollout, Sample

PROMPT = "the cat sat on the mat and said hello to the dog, how are you today?"
TURN = " fine, thank you! and said the cat to the dog on the mat, how are"
SAMPLES = [
    Sample(PROMPT, " fine"),
    Sample(PROMPT, " hello to the dog"),
    Sample("how", " are you today? fine, thank you!"),
    Sample(PROMPT, TURN + " you", ended="cut"),
    Sample(PROMPT, TURN + " they", ended="cut"),
    Sample(PROMPT, " fine"),
    Sample("x", ""),
]
"""A pair, a row by itself, a second turn with two answers, a row that comes twice, one that is hardly there."""
REFUSED = ("bloom", "mamba", "qwen3_next", "llama4")


def separate(policy: LanguagePolicy, rollout: Rollout) -> Tensor:
    """One row at a time."""
    rows = [policy.evaluate(rollout.select([i]))["logps"] for i in range(len(rollout))]
    return torch.cat(rows)


def read_tokens(policy: LanguagePolicy, run: Callable[[], Any]) -> int:
    """How many tokens the model reads, padding among them, while something runs."""
    seen: list[int] = []
    layer = policy._core.get_input_embeddings()
    hook = layer.register_forward_hook(lambda module, given, out: seen.append(given[0].numel()))
    run()
    hook.remove()
    return sum(seen)


def unpacked(policy: LanguagePolicy) -> LanguagePolicy:
    """The policy with ordinary batches."""
    for one in (policy, *policy._views.values()):
        one._packs = lambda row: False  # type: ignore[method-assign]
    return policy


def gradients(policy: LanguagePolicy, rollout: Rollout) -> dict[str, Tensor]:
    names, params = zip(*[(n, p) for n, p in policy.module.named_parameters() if p.requires_grad], strict=True)
    found = policy.evaluate(rollout, ("logps", "entropy"))
    pull = torch.randn(rollout.mask.shape, generator=torch.Generator().manual_seed(0))
    loss = ((found["logps"] + 0.3 * found["entropy"]) * pull * rollout.mask).sum()
    grads = torch.autograd.grad(loss, params, allow_unused=True)
    return {n: torch.zeros(()) if g is None else g for n, g in zip(names, grads, strict=True)}


def assert_close(mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    for name, grad in theirs.items():
        assert torch.allclose(mine[name], grad, atol=1e-4 * max(1.0, float(grad.abs().max()))), name


def test_packed_values_are_those_of_rows_by_themselves_in_every_family(family: LanguagePolicy) -> None:
    rollout = family.encode(SAMPLES)
    with torch.no_grad():
        found, alone = family.evaluate(rollout)["logps"], separate(family, rollout)
    assert torch.allclose(found, alone, atol=2e-5)
    assert alone.std() > 0.5, "the model is too flat for a wrong position to show"


def test_what_rows_share_is_read_once_in_every_family_that_can(family: LanguagePolicy) -> None:
    rollout = family.encode(SAMPLES)
    rows = [tuple(p + o) for p, o in zip(rollout.inputs["prompt_ids"], rollout.inputs["output_ids"], strict=True)]
    family.evaluate(rollout)  # the probe is behind it
    read = read_tokens(family, lambda: family.evaluate(rollout))
    refused = family._core.config.model_type.removesuffix("_text") in REFUSED
    prompt, turn = len(rollout.inputs["prompt_ids"][0]), len(beginning(rows[3], rows[4]))
    assert turn - prompt >= 16, "the second turns share too little to show it"
    everything = sum(map(len, rows))
    least = everything - 4 * prompt - (turn - prompt) - len(rollout.inputs["output_ids"][5])
    assert (read >= everything) if refused else (least <= read <= least + 2)


def beginning(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    size = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return a[:size]


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_gives_wrong_numbers_falls_back_and_says_so_once(
    name: str, make: Callable[..., LanguagePolicy], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "_KINDS", {})
    policy = make(name)
    before = policy._core.config._attn_implementation
    rollout = policy.encode(SAMPLES[:2])
    with caplog.at_level(logging.WARNING):
        for view in ("live", "start", "live"):
            policy.at(view).evaluate(rollout)
    [said] = [r.getMessage() for r in caplog.records if "packed" in r.getMessage()]
    assert type(policy._core).__name__ in said
    assert policy._core.config._attn_implementation == before


def test_gradients_are_those_of_ordinary_batches_in_every_family(family: LanguagePolicy) -> None:
    rollout = family.encode(SAMPLES)
    mine = gradients(family, rollout)
    assert_close(mine, gradients(unpacked(family), rollout))
    assert any(g.abs().max() > 1e-2 for g in mine.values())


LONG = "the cat sat on the mat and said hello to the dog, how are you today? fine, thank you! " * 2


def test_the_last_layer_runs_for_what_is_read_in_every_family_that_can(family: LanguagePolicy) -> None:
    """A prompt's tokens get keys and values there, and nothing more; values and gradients stay as they are."""
    rollout = family.encode([Sample(LONG, " fine"), Sample(LONG, " hello to the dog")])
    with torch.no_grad():
        found, alone = family.evaluate(rollout)["logps"], separate(family, rollout)
    assert torch.allclose(found, alone, atol=2e-5)
    if family._core.config._attn_implementation != NAME or last_layer(family._core) is None:
        assert family._core.config.model_type.removesuffix("_text") in (*REFUSED, "gpt2")
        return
    layer: Any = last_layer(family._core)
    seen: list[int] = []
    hook = layer.register_forward_hook(
        lambda module, given, out: seen.append((out if isinstance(out, Tensor) else out[0]).shape[1])
    )
    packed = gradients(family, rollout)
    hook.remove()
    responses = sum(map(len, rollout.inputs["output_ids"]))
    assert len(rollout.inputs["prompt_ids"][0]) > 3 * responses
    assert seen == [responses + 1]
    assert_close(packed, gradients(unpacked(family), rollout))


@pytest.mark.parametrize(("adapter", "checkpointing"), [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize("micro_batch", [None, 2])
@pytest.mark.parametrize("name", sorted(set(FAMILIES) - set(REFUSED)))
def test_a_dpo_step_is_that_of_ordinary_batches(
    name: str,
    adapter: bool,
    micro_batch: int | None,
    checkpointing: bool,
    make: Callable[..., LanguagePolicy],
    lora: Callable[..., LanguagePolicy],
) -> None:
    """With and without LoRA, gradient checkpointing and accumulation."""

    def run(policy: LanguagePolicy) -> tuple[dict[str, Tensor], dict[str, float]]:
        with torch.no_grad():
            for n, p in policy.module.named_parameters():
                if "lora_B" in n:
                    p.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
        learner = Learner(policy, lr=1e-2, micro_batch=micro_batch, gradient_checkpointing=checkpointing)
        data = policy.encode([SAMPLES[i] for i in (0, 1, 3, 4)]).with_tensors(rank=torch.tensor([0, 1, 1, 0]))
        data.group = torch.tensor([0, 0, 1, 1])
        term = Term(attach_reference(data, policy.at("start")), dpo)
        grads = learner.grads(term)
        return grads, learner.step(term) | learner.step(term)

    build = lora if adapter else make
    mine, said = run(build(name))
    theirs, says = run(unpacked(build(name)))
    assert_close(mine, theirs)
    assert said["loss"] == pytest.approx(says["loss"], abs=1e-4)


def test_a_critic_shares_prompts_too(make: Callable[..., LanguagePolicy]) -> None:
    policy = make("mistral", keep_start=False)
    critic = Critic.from_policy(policy, seed=0)
    rollout = policy.encode(SAMPLES)
    with torch.no_grad():
        found = critic.evaluate(rollout)["values"]
        alone = torch.cat([critic.evaluate(rollout.select([i]))["values"] for i in range(len(rollout))])
    assert torch.allclose(found, alone, atol=1e-5)
    assert critic.module.config._attn_implementation == NAME  # type: ignore[union-attr]


def test_a_small_budget_changes_no_value(make: Callable[..., LanguagePolicy]) -> None:
    policy = make("llama", keep_start=False)
    rollout = policy.encode(SAMPLES)
    with torch.no_grad():
        whole = policy.evaluate(rollout)["logps"]
        policy.max_tokens = 40
        assert torch.allclose(policy.evaluate(rollout)["logps"], whole, atol=1e-5)


def test_what_is_saved_does_not_name_the_attention_function(make: Callable[..., LanguagePolicy], tmp_path: Any) -> None:
    policy = make("llama", keep_start=False)
    policy.evaluate(policy.encode(SAMPLES[:2]))
    assert policy._core.config._attn_implementation == NAME
    policy.save(tmp_path)
    assert NAME not in (tmp_path / "config.json").read_text()
    assert LanguagePolicy.load(tmp_path)._core.config._attn_implementation != NAME


def test_the_model_generates_as_before(make: Callable[..., LanguagePolicy]) -> None:
    """Transformers' own generation goes through the attention function too, without segments."""
    policy = make("gemma2", keep_start=False)
    ids = torch.tensor([policy.codec.prompt(PROMPT), policy.codec.prompt(PROMPT)])
    mask = torch.ones_like(ids)
    mask[1, :5] = 0
    plain = {"max_new_tokens": 5, "do_sample": False, "attention_mask": mask}
    before = policy._core.generate(ids, **plain)
    policy.evaluate(policy.encode(SAMPLES[:2]))
    assert torch.equal(policy._core.generate(ids, **plain), before)


def test_attention_that_somebody_sets_later_does_no_harm(make: Callable[..., LanguagePolicy]) -> None:
    policy = make("llama", keep_start=False)
    rollout = policy.encode(SAMPLES)
    with torch.no_grad():
        before = policy.evaluate(rollout)["logps"]
        for name in ("eager", "sdpa"):
            policy._core.set_attn_implementation(name)
            assert torch.allclose(policy.evaluate(rollout)["logps"], before, atol=1e-5)


def test_a_last_layer_that_is_replaced_does_no_harm(make: Callable[..., LanguagePolicy]) -> None:
    policy = make("llama", keep_start=False)
    rollout = policy.encode([Sample(LONG, " fine"), Sample(LONG, " hello to the dog")])
    with torch.no_grad():
        before = policy.evaluate(rollout)["logps"]
        policy._core.model.layers[-1] = copy.deepcopy(policy._core.model.layers[-1])
        assert torch.allclose(policy.evaluate(rollout)["logps"], before, atol=1e-5)


def test_hooks_of_the_last_layer_run_once(make: Callable[..., LanguagePolicy]) -> None:
    """A steering vector added to its input is added once."""
    policy = make("llama", keep_start=False)
    rollout = policy.encode([Sample(LONG, " fine"), Sample(LONG, " hello to the dog")])
    policy.evaluate(rollout)
    steer = torch.randn(32, generator=torch.Generator().manual_seed(0))
    policy._core.model.layers[-1].register_forward_pre_hook(lambda module, args: (args[0] + steer, *args[1:]))
    with torch.no_grad():
        assert torch.allclose(policy.evaluate(rollout)["logps"], separate(unpacked(policy), rollout), atol=2e-5)


def test_threads_may_share_a_model(make: Callable[..., LanguagePolicy]) -> None:
    policy = make("llama", keep_start=False)
    rollout = policy.encode([Sample(LONG, " fine"), Sample(LONG, " hello to the dog")])

    def run(_: int) -> Tensor:
        with torch.no_grad():
            return policy.evaluate(rollout)["logps"]

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(run, range(40)))
    assert all(torch.allclose(x, found[0], atol=1e-6) for x in found)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["qwen3_next", "llama4", "llama", "gemma2"])
def test_half_precision_hides_nothing_from_the_probe(
    name: str, dtype: torch.dtype, make: Callable[..., LanguagePolicy], tokenizer: Any
) -> None:
    """Flat weights and coarse rounding: the probe is run in single precision too."""
    model = build(name, tokenizer)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.div_(6)
    policy = LanguagePolicy(model.to(dtype), tokenizer, keep_start=False)
    policy.evaluate(policy.encode(SAMPLES[:2]))
    assert (policy._core.config._attn_implementation == NAME) == (name not in REFUSED)
    assert all(p.dtype == dtype for p in policy.module.parameters())


def test_the_probe_does_not_see_autocast(make: Callable[..., LanguagePolicy], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_KINDS", {})
    policy = make("llama", keep_start=False)
    with torch.autocast("cpu", torch.bfloat16):
        policy.evaluate(policy.encode(SAMPLES[:2]))
    assert policy._core.config._attn_implementation == NAME


def test_models_that_choose_their_keys_are_refused(tokenizer: Any) -> None:
    """Sparse attention hands its choice to the attention function, which would pass over it in silence."""
    from transformers import DeepseekV32Config, DeepseekV32ForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 48, "moe_intermediate_size": 16, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16}
    parts = {"qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "index_topk": 32, "index_head_dim": 8}
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 1, "n_group": 1, "topk_group": 1, "index_n_heads": 2}
    plain = {"vocab_size": len(tokenizer), "max_position_embeddings": 96, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    model = DeepseekV32ForCausalLM(DeepseekV32Config(**sizes, **heads, **parts, **experts, **plain)).eval()
    before = model.config._attn_implementation
    policy = LanguagePolicy(model, tokenizer, keep_start=False)
    rollout = policy.encode([Sample(LONG, " fine"), Sample(LONG, " hello to the dog")])
    with torch.no_grad():
        assert torch.allclose(policy.evaluate(rollout)["logps"], separate(policy, rollout), atol=1e-4)
    assert model.config._attn_implementation == before
