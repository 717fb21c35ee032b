"""Building, saving and loading language policies; tokenizers; sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rewardkit.policies.language import LanguagePolicy, Sampling, train_tokenizer
from rewardkit.policies.language.scratch import SIZES
from rewardkit.types import Sample

Make = Callable[..., LanguagePolicy]
SAMPLES = [Sample("the cat sat", " on the mat"), Sample([{"role": "user", "content": "how"}], "fine")]
WIDTH = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def logps(policy: LanguagePolicy) -> torch.Tensor:
    with torch.no_grad():
        return policy.evaluate(policy.encode(SAMPLES))["logps"]


def test_a_saved_policy_loads_with_transformers_alone(make: Make, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    policy = make()
    policy.save(tmp_path)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert model.generation_config.eos_token_id == policy.tokenizer.eos_token_id
    plain = LanguagePolicy(model, tokenizer)
    assert torch.allclose(logps(plain), logps(policy), atol=1e-6)
    prompt = tokenizer("the cat", return_tensors="pt", return_token_type_ids=False)
    ours = policy.sample(["the cat"], sampling=Sampling(max_new_tokens=8, greedy=True)).inputs["output_ids"][0]
    theirs = model.generate(**prompt, max_new_tokens=8, do_sample=False)[0, prompt.input_ids.shape[1] :].tolist()
    assert ours == theirs


def test_a_saved_policy_loads_to_the_same_version(make: Make, tmp_path: Path) -> None:
    policy = make()
    policy.save(tmp_path)
    loaded = LanguagePolicy.load(tmp_path)
    assert loaded.version == policy.version
    assert torch.equal(logps(loaded), logps(policy))
    assert next(LanguagePolicy.load(tmp_path, dtype="bfloat16").module.parameters()).dtype == torch.bfloat16


def test_an_adapter_folder_loads_with_its_base_and_trains_on(make: Make, tmp_path: Path) -> None:
    make().save(tmp_path / "base")
    policy = LanguagePolicy.load(tmp_path / "base", lora={"r": 2, "target_modules": ["q_proj"]})
    assert policy.at("start") is policy.at("adapter_off")
    with torch.no_grad():
        for name, p in policy.module.named_parameters():
            if "lora_B" in name:
                p.add_(0.3)
    policy.save(tmp_path / "adapter")
    assert not list((tmp_path / "adapter").glob("model*.safetensors"))
    loaded = LanguagePolicy.load(tmp_path / "adapter")
    assert torch.allclose(logps(loaded), logps(policy), atol=1e-6)
    assert any(p.requires_grad for p in loaded.module.parameters())
    assert torch.allclose(logps(loaded.at("adapter_off")), logps(LanguagePolicy.load(tmp_path / "base")), atol=1e-6)
    policy.save(tmp_path / "merged", merge=True)
    merged = LanguagePolicy.load(tmp_path / "merged")
    assert torch.allclose(logps(merged), logps(policy), atol=1e-4)


def test_an_adapter_over_an_unsaved_base_is_not_saved_alone(tokenizer: Any, tmp_path: Path) -> None:
    policy = LanguagePolicy.scratch(tokenizer, WIDTH, lora={"r": 2, "target_modules": ["q_proj"]})
    with pytest.raises(ValueError, match="merge=True"):
        policy.save(tmp_path)
    policy.save(tmp_path, merge=True)
    assert torch.allclose(logps(LanguagePolicy.load(tmp_path)), logps(policy), atol=1e-5)


def test_a_tokenizer_without_eos_is_refused(make: Make) -> None:
    import copy

    policy = make(keep_start=False)
    tokenizer = copy.deepcopy(policy.tokenizer)
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="EOS"):
        LanguagePolicy(policy.module, tokenizer)


@pytest.mark.parametrize("size", sorted(SIZES))
def test_a_named_size_has_at_least_the_weights_its_name_says(size: str, tokenizer: Any) -> None:
    million = int(size.removeprefix("llama-").removesuffix("m"))
    policy = LanguagePolicy.scratch(tokenizer, size, keep_start=False)
    embedding = policy.module.get_input_embeddings().weight
    assert policy.parameters - embedding.numel() >= million * 1_000_000
    assert policy.module.lm_head.weight is embedding


def test_scratch_is_seeded_and_leaves_the_global_generator_alone(tokenizer: Any) -> None:
    before = torch.random.get_rng_state()
    first = LanguagePolicy.scratch(tokenizer, WIDTH, seed=4).version
    torch.rand(3)
    torch.random.set_rng_state(before)
    assert LanguagePolicy.scratch(tokenizer, WIDTH, seed=4).version == first
    assert LanguagePolicy.scratch(tokenizer, WIDTH, seed=5).version != first
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_unknown_size_names_those_there_are(tokenizer: Any) -> None:
    with pytest.raises(KeyError, match="llama-1m"):
        LanguagePolicy.scratch(tokenizer, "llama-7t")


def test_a_scratch_model_learns(tokenizer: Any) -> None:
    policy = LanguagePolicy.scratch(tokenizer, {**WIDTH, "hidden_size": 32})
    rollout = policy.encode([Sample("hello", " to the dog")])
    optimiser = torch.optim.AdamW(policy.module.parameters(), lr=0.01)
    for _ in range(60):
        optimiser.zero_grad()
        policy.evaluate(rollout)["logps"].mean().neg().backward()
        optimiser.step()
    said = policy.sample(["hello"], sampling=Sampling(max_new_tokens=20, greedy=True)).samples[0]
    assert (said.output, said.ended) == (" to the dog", "done")


class TestTokenizer:
    def test_any_text_is_decoded_to_itself(self, tokenizer: Any) -> None:
        for text in ["the cat", "  two  spaces\n\ttab", "Ünïcode ✓ 你好 🙂", "don 't , stop !", ""]:
            ids = tokenizer(text, add_special_tokens=False).input_ids
            assert tokenizer.decode(ids) == text

    def test_bos_eos_and_pad_are_three_tokens(self, tokenizer: Any) -> None:
        assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3

    def test_specials_are_one_token_each(self) -> None:
        tokenizer = train_tokenizer(["a b"], 300, specials=["<think>"])
        assert len(tokenizer("<think>", add_special_tokens=False).input_ids) == 1
        assert len(tokenizer("<|user|>", add_special_tokens=False).input_ids) == 1

    def test_training_is_deterministic_and_bounded(self) -> None:
        texts = ["the cat sat on the mat"] * 3
        first, second = train_tokenizer(texts, 270), train_tokenizer(texts, 270)
        assert first.get_vocab() == second.get_vocab()
        assert len(first) <= 270

    def test_too_small_a_vocabulary_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least 262"):
            train_tokenizer(["a"], 100)

    def test_the_chat_template_survives_a_folder(self, tokenizer: Any, tmp_path: Path) -> None:
        from transformers import AutoTokenizer

        tokenizer.save_pretrained(tmp_path)
        again = AutoTokenizer.from_pretrained(tmp_path)
        chat = [{"role": "user", "content": "hello"}]
        assert again.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == (
            "<|bos|><|user|>hello<|eos|><|assistant|>"
        )
        assert again("hello").input_ids == tokenizer("hello").input_ids


def test_the_seed_of_a_policy_from_scratch_is_its_adapters_too() -> None:
    tokenizer = train_tokenizer(["Say yes. Say no."], 300)

    def adapter(seed: int) -> torch.Tensor:
        made = LanguagePolicy.scratch(tokenizer, WIDTH, seed=seed, lora={"r": 2, "target_modules": ["q_proj"]})
        return next(p for n, p in made.module.named_parameters() if "lora_A" in n).detach()

    assert torch.equal(adapter(0), adapter(0))
    assert not torch.equal(adapter(0), adapter(1))
