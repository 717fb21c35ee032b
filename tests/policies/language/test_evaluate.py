"""Log-probs of a language policy against the plainest computation there is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rewardkit.objectives.policy import full_kl
from rewardkit.policies.language import LanguagePolicy, Sampling, head
from rewardkit.protocols import Against
from rewardkit.types import Rollout, Sample

SAMPLES = [
    Sample("the cat sat", " on the mat"),
    Sample("how", " are you today? fine, thank you!"),
    Sample("hello to the dog, and to the cat on the mat", " no", ended="cut"),
    Sample("x", ""),
]


def naive(policy: LanguagePolicy, rollout: Rollout, temperature: float = 1.0) -> torch.Tensor:
    """One row at a time, no padding, whole logits, float64 log-softmax."""
    out = torch.zeros(rollout.mask.shape, dtype=torch.float64)
    for i, (p, o) in enumerate(zip(rollout.inputs["prompt_ids"], rollout.inputs["output_ids"], strict=True)):
        if o:
            logits = policy._core(input_ids=torch.tensor([p + o]), use_cache=False).logits[0].double() / temperature
            table = logits.log_softmax(-1)
            for t, token in enumerate(o):
                out[i, t] = table[len(p) + t - 1, token]
    return out


def test_logps_equal_a_row_by_row_forward_in_every_family(family: LanguagePolicy) -> None:
    """R6, R16: the batch, its padding and its mask change nothing."""
    rollout = family.encode(SAMPLES)
    with torch.no_grad():
        found = family.evaluate(rollout)["logps"]
        assert torch.allclose(found.double(), naive(family, rollout), atol=1e-5)
    assert found.std() > 0.5, "the model is too flat for a wrong position to show"


def test_no_family_needs_whole_logits(family: LanguagePolicy) -> None:
    """But Llama 4's text model, whose decoder goes by a name that its class does not give."""
    assert head.can_project(family._core) == (family._core.config.model_type != "llama4_text")


def test_left_and_right_padding_agree_in_every_family(family: LanguagePolicy) -> None:
    """R15, R16."""
    rollout = family.encode(SAMPLES)
    with torch.no_grad():
        right = family.evaluate(rollout)["logps"]
        family.padding_side = "left"
        left = family.evaluate(rollout)["logps"]
    assert torch.allclose(left, right, atol=1e-5)


def test_the_first_output_token_is_predicted_by_the_last_prompt_token(make: Callable[..., LanguagePolicy]) -> None:
    """R22: brute force over every token at the boundary; a shift by one in either direction is told apart."""
    policy = make(keep_start=False)
    prompt, output = [5, 9, 20], [31, 7]
    rollout = Rollout([Sample("", "")], torch.ones(1, 2), inputs={"prompt_ids": [prompt], "output_ids": [output]})
    with torch.no_grad():
        found = policy.evaluate(rollout)["logps"][0]
        table = policy._core(input_ids=torch.tensor([prompt + output])).logits[0].log_softmax(-1)
    matches = [
        [j for j in range(5) if torch.isclose(table[j, token], found[t], atol=1e-5)] for t, token in enumerate(output)
    ]
    assert matches == [[2], [3]]


def test_changing_the_prompt_changes_every_logp_and_changing_the_last_token_only_its_own(
    make: Callable[..., LanguagePolicy],
) -> None:
    policy = make(keep_start=False)

    def logps(prompt: list[int], output: list[int]) -> torch.Tensor:
        rollout = Rollout([Sample("", "")], torch.ones(1, 3), inputs={"prompt_ids": [prompt], "output_ids": [output]})
        with torch.no_grad():
            return policy.evaluate(rollout)["logps"][0]

    base = logps([5, 9], [31, 7, 40])
    assert (logps([6, 9], [31, 7, 40]) != base).all()
    assert (logps([5, 9], [31, 7, 41]) == base).tolist() == [True, True, False]


def test_temperature_of_sampling_is_replayed(make: Callable[..., LanguagePolicy]) -> None:
    """R29: the log-prob is log_softmax(logits / temperature)."""
    policy = make(keep_start=False)
    rollout = policy.encode(SAMPLES)
    rollout.how["temperature"] = 0.6
    with torch.no_grad():
        assert torch.allclose(policy.evaluate(rollout)["logps"].double(), naive(policy, rollout, 0.6), atol=1e-5)


def test_entropy_counts_no_padding(make: Callable[..., LanguagePolicy]) -> None:
    """R25: entropy of each row alone, 0 where there is no token."""
    policy = make(keep_start=False)
    rollout = policy.encode(SAMPLES)
    with torch.no_grad():
        found = policy.evaluate(rollout, ("entropy",))["entropy"]
        for i, (p, o) in enumerate(zip(rollout.inputs["prompt_ids"], rollout.inputs["output_ids"], strict=True)):
            p_TV = policy._core(input_ids=torch.tensor([p + o])).logits[0, len(p) - 1 : -1].softmax(-1)
            assert torch.allclose(found[i, : len(o)], -(p_TV * p_TV.log()).sum(-1), atol=1e-5)
            assert (found[i, len(o) :] == 0).all()


def test_functions_of_logits_are_named_and_placed(make: Callable[..., LanguagePolicy]) -> None:
    policy = make(keep_start=False, chunk=3)

    def both(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return torch.stack([logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0], targets.float()], -1)

    rollout = policy.encode(SAMPLES)
    with torch.no_grad():
        found = policy.evaluate(rollout, ("logps", both))
    assert torch.allclose(found["both"][..., 0], found["logps"])
    tokens = [
        [int(x) for x in row[: len(o)]]
        for row, o in zip(found["both"][..., 1], rollout.inputs["output_ids"], strict=True)
    ]
    assert tokens == rollout.inputs["output_ids"]


def test_chunks_and_batches_change_neither_values_nor_gradients(make: Callable[..., LanguagePolicy]) -> None:
    """R6: the head in chunks and the batch in parts against all at once."""
    grads, values = [], []
    for options in ({}, {"chunk": 2}, {"max_tokens": 8}):
        policy = make(keep_start=False, **options)
        found = policy.evaluate(policy.encode(SAMPLES))["logps"]
        found.square().sum().backward()
        values.append(found.detach())
        grads.append(torch.cat([p.grad.flatten() for p in policy.module.parameters()]))
    for v, g in zip(values[1:], grads[1:], strict=True):
        assert torch.allclose(v, values[0], atol=1e-5)
        assert torch.allclose(g, grads[0], atol=1e-4 * float(grads[0].abs().max()))


def test_logits_exist_at_response_positions_only_and_in_chunks(
    make: Callable[..., LanguagePolicy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The output embedding never sees more than a chunk, in the forward pass or in the recomputation."""
    policy = make(keep_start=False, chunk=4)
    rollout = policy.encode(SAMPLES)
    head.can_project(policy._core)
    policy.evaluate(rollout)
    seen: list[int] = []
    hook = policy._core.lm_head.register_forward_hook(lambda m, a, out: seen.append(out.numel() // out.shape[-1]))
    policy.evaluate(rollout)["logps"].sum().backward()
    hook.remove()
    responses = sum(len(o) for o in rollout.inputs["output_ids"])
    assert max(seen) <= 4
    assert sum(seen) == 2 * responses


def test_a_model_whose_head_is_unknown_falls_back_to_its_own_logits(make: Callable[..., LanguagePolicy]) -> None:
    policy = make(keep_start=False)
    inner = policy._core.forward

    def shifted(*args: Any, **kwargs: Any) -> Any:
        out = inner(*args, **kwargs)
        out.logits = out.logits * 0.5
        return out

    rollout = policy.encode(SAMPLES)
    before = policy.evaluate(rollout)["logps"]
    policy._projects = None
    policy._core.forward = shifted
    with torch.no_grad():
        found = policy.evaluate(rollout)["logps"]
        assert not torch.allclose(found, before)
        assert torch.allclose(found.double(), naive(policy, rollout), atol=1e-5)


def test_bfloat16_weights_give_float32_log_softmax(make: Callable[..., LanguagePolicy]) -> None:
    """R36, R41: against a float64 log-softmax of the same logits, under 1e-3 a token."""
    policy = make(keep_start=False)
    policy.module.to(torch.bfloat16)
    rollout = policy.encode(SAMPLES)
    captured: list[torch.Tensor] = []
    hook = policy._core.lm_head.register_forward_hook(lambda m, a, out: captured.append(out))

    def exact(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return captured[-1].double().log_softmax(-1).gather(-1, targets[:, None])[:, 0]

    with torch.no_grad():
        found = policy.evaluate(rollout, ("logps", exact))
    hook.remove()
    assert captured[-1].dtype == torch.bfloat16
    assert found["logps"].dtype == torch.float32
    assert float((found["logps"] - found["exact"]).abs().max()) < 1e-3


def test_a_pad_id_inside_the_prompt_is_a_token_like_any_other(make: Callable[..., LanguagePolicy]) -> None:
    """R15: masks come from lengths, never from ids."""
    policy = make(keep_start=False)
    pad = policy.tokenizer.pad_token_id
    rows = {"prompt_ids": [[5, pad, 9], [8]], "output_ids": [[pad, 11], [12, 13, 14, 15]]}
    rollout = Rollout([Sample("", "")] * 2, torch.ones(2, 4), inputs=rows)
    for side in ("left", "right"):
        policy.padding_side = side  # type: ignore[assignment]
        with torch.no_grad():
            assert torch.allclose(policy.evaluate(rollout)["logps"].double(), naive(policy, rollout), atol=1e-5)


def test_extra_columns_of_padding_change_nothing(make: Callable[..., LanguagePolicy]) -> None:
    """R16: a rollout padded to a larger T, as after ``Rollout.cat``, gives the same rows."""
    policy = make(keep_start=False)
    one, two = policy.encode(SAMPLES[:1]), policy.encode(SAMPLES[1:])
    with torch.no_grad():
        joined = policy.evaluate(Rollout.cat([one, two]))["logps"]
        alone = policy.evaluate(one)["logps"]
    assert torch.allclose(joined[:1, : alone.shape[1]], alone, atol=1e-5)
    assert (joined[0, alone.shape[1] :] == 0).all()


def test_dropout_follows_the_mode_of_the_module(make: Callable[..., LanguagePolicy]) -> None:
    """R40: evaluation mode reproduces sampling; training mode with dropout does not."""
    policy = make("gpt2", {"resid_pdrop": 0.3}, keep_start=False)
    rollout = policy.sample(["the cat"], n=3, sampling=Sampling(max_new_tokens=6), seed=1)
    with torch.no_grad():
        policy.module.eval()
        assert torch.allclose(policy.evaluate(rollout)["logps"], rollout["old_logps"], atol=1e-4)
        policy.module.train()
        assert not torch.allclose(policy.evaluate(rollout)["logps"], rollout["old_logps"], atol=1e-2)


def test_a_rollout_of_empty_outputs_gives_zeros(make: Callable[..., LanguagePolicy]) -> None:
    policy = make(keep_start=False)
    rollout = policy.encode([Sample("a", "", ended="cut")])
    assert policy.evaluate(rollout)["logps"].shape == (1, 0)


def test_unknown_names_and_foreign_rollouts_are_refused(make: Callable[..., LanguagePolicy]) -> None:
    policy = make(keep_start=False)
    with pytest.raises(KeyError, match="logps"):
        policy.evaluate(policy.encode(SAMPLES), ("values",))
    with pytest.raises(KeyError, match="encode"):
        policy.evaluate(policy.encode(SAMPLES).under(["a", "b", "c", "d"]))


@pytest.mark.parametrize("chunk", [None, 2])
def test_exact_kl_against_another_view_equals_whole_logits(
    make: Callable[..., LanguagePolicy], chunk: int | None
) -> None:
    """Value and gradient, in one chunk and in several; nothing flows into the reference."""
    policy = make("llama", chunk=chunk)
    reference = policy.at("start")
    with torch.no_grad():
        for p in policy.module.parameters():
            p.add_(0.05 * torch.randn_like(p))
    rollout = policy.encode([Sample("the cat", " sat on"), Sample("how are", " you")])
    found = policy.evaluate(rollout, (full_kl(reference),))["full_kl"]
    found.sum().backward()
    gradient = policy.module.get_output_embeddings().weight.grad.clone()
    policy.module.zero_grad()
    total = torch.zeros(())
    for i, (p, o) in enumerate(zip(rollout.inputs["prompt_ids"], rollout.inputs["output_ids"], strict=True)):
        ids = torch.tensor([p + o])
        own, other = (m(ids).logits[0, len(p) - 1 : -1].log_softmax(-1) for m in (policy.module, reference.module))
        kl = (own.exp() * (own - other.detach())).sum(-1)
        torch.testing.assert_close(found[i, : len(o)], kl, atol=1e-4, rtol=1e-4)
        assert float(found[i, len(o) :].abs().sum()) == 0
        total = total + kl.sum()
    total.backward()
    torch.testing.assert_close(gradient, policy.module.get_output_embeddings().weight.grad, atol=1e-4, rtol=1e-3)
    assert all(p.grad is None for p in reference.module.parameters())


def test_exact_kl_against_the_adapter_off_is_zero_for_a_fresh_adapter(lora: Callable[..., LanguagePolicy]) -> None:
    policy = lora("llama")
    rollout = policy.encode([Sample("the cat", " sat on")])
    want = (full_kl(policy.at("start")),)
    assert float(policy.evaluate(rollout, want)["full_kl"].abs().max()) < 1e-6
    with torch.no_grad():
        for name, p in policy.module.named_parameters():
            if "lora_B" in name:
                p.normal_()
    found = policy.evaluate(rollout, want)["full_kl"]
    assert float(found.detach().min()) > 0
    found.sum().backward()
    assert any(p.grad is not None and bool(p.grad.any()) for n, p in policy.module.named_parameters() if "lora" in n)


def test_a_function_of_several_other_policies_gets_them_in_order(make: Callable[..., LanguagePolicy]) -> None:
    """Two others in one pass of the head, chunked or not, are each what they are alone."""
    policy, one, two = (make("llama", chunk=3, keep_start=False) for _ in range(3))
    with torch.no_grad():
        for scale, other in ((0.8, one), (1.3, two)):
            for p in other.module.parameters():
                p.mul_(scale)
    rollout = policy.encode(SAMPLES)

    def apart(logits: Tensor, first: Tensor, second: Tensor, targets: Tensor) -> Tensor:
        logps = [x.log_softmax(-1).gather(-1, targets[:, None])[:, 0] for x in (logits, first, second)]
        return torch.stack([logps[1] - logps[0], logps[2] - logps[0]], -1)

    found = policy.evaluate(rollout, ("logps", Against(apart, one, two)))
    for i, other in enumerate((one, two)):
        wanted = other.evaluate(rollout)["logps"] - found["logps"]
        torch.testing.assert_close(found["apart"][..., i], wanted, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="another policy"):
        Against(apart)
