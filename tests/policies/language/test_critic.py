"""Values of the states before each token."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rewardkit.policies.adapters import add_lora
from rewardkit.policies.language import Critic, LanguagePolicy
from rewardkit.protocols import Model
from rewardkit.types import Rollout, Sample

Make = Callable[..., LanguagePolicy]
SAMPLES = [Sample("the cat sat", " on the mat"), Sample("how", " are you today? fine"), Sample("x", "", ended="cut")]


def test_a_value_is_read_before_its_token(make: Make) -> None:
    """Brute force: the classifier's output on the prompt and ``output[:t]`` alone, at the last position."""
    policy = make(keep_start=False)
    critic = Critic.from_policy(policy)
    critic.module.eval()
    rollout = policy.encode(SAMPLES)
    with torch.no_grad():
        values = critic.evaluate(rollout)["values"]
        for i, (p, o) in enumerate(zip(rollout.inputs["prompt_ids"], rollout.inputs["output_ids"], strict=True)):
            for t in range(len(o)):
                alone = critic.module(input_ids=torch.tensor([p + o[:t]])).logits[0, -1, 0]
                assert torch.isclose(values[i, t], alone, atol=1e-5)
            assert (values[i, len(o) :] == 0).all()
    assert values.std() > 1e-3


def test_a_value_does_not_see_its_own_token(make: Make) -> None:
    policy = make(keep_start=False)
    critic = Critic.from_policy(policy)

    def values(output: list[int]) -> torch.Tensor:
        rows = {"prompt_ids": [[5, 6]], "output_ids": [output]}
        return critic.evaluate(Rollout([Sample("", "")], torch.ones(1, 3), inputs=rows))["values"][0]

    same = values([7, 8, 9]) == values([7, 20, 9])
    assert same.tolist() == [True, True, False]


def test_the_head_is_a_function_of_the_seed(make: Make) -> None:
    """R58."""
    policy = make(keep_start=False)
    before = torch.random.get_rng_state()
    heads = [Critic.from_policy(policy, seed=s).module.score.weight for s in (1, 1, 2)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2", "gemma2", "phi"])
def test_the_trunk_is_a_copy_of_the_policys(make: Make, family: str) -> None:
    policy = make(family, keep_start=False)
    critic = Critic.from_policy(policy)
    ids = torch.tensor([[5, 6, 7]])
    trunks = [getattr(m, m.base_model_prefix) for m in (policy.module, critic.module.eval())]
    hidden = [t(input_ids=ids).last_hidden_state for t in trunks]
    assert torch.equal(hidden[0], hidden[1])
    shared = {p.data_ptr() for p in policy.module.parameters()} & {p.data_ptr() for p in critic.module.parameters()}
    assert not shared


def test_an_adapter_is_merged_into_the_trunk(make: Make) -> None:
    base = make(keep_start=False)
    plain = Critic.from_policy(base)
    tuned = LanguagePolicy(add_lora(copy.deepcopy(base.module), {"r": 2, "target_modules": ["q_proj"]}), base.tokenizer)
    with torch.no_grad():
        for name, p in tuned.module.named_parameters():
            if "lora_B" in name:
                p.add_(0.5)
    before = {n: p.clone() for n, p in tuned.module.named_parameters()}
    critic = Critic.from_policy(tuned)
    rollout = base.encode(SAMPLES)
    assert not torch.allclose(critic.evaluate(rollout)["values"], plain.evaluate(rollout)["values"])
    assert all(torch.equal(p, before[n]) for n, p in tuned.module.named_parameters())
    off = Critic.from_policy(tuned.at("adapter_off"))
    assert torch.allclose(off.evaluate(rollout)["values"], plain.evaluate(rollout)["values"])


def test_from_scalar_begins_as_the_reward_model(tokenizer: Any) -> None:
    from transformers import LlamaConfig, LlamaForSequenceClassification

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        pad_token_id=tokenizer.pad_token_id,
        num_labels=1,
    )
    reward = SimpleNamespace(module=LlamaForSequenceClassification(config).eval())
    critic = Critic.from_scalar(reward)
    critic.module.eval()
    rows = {"prompt_ids": [[15, 16]], "output_ids": [[17, 18]]}
    value = critic.evaluate(Rollout([Sample("", "")], torch.ones(1, 2), inputs=rows))["values"][0, 1]
    assert torch.isclose(value, reward.module(input_ids=torch.tensor([[15, 16, 17]])).logits[0, 0], atol=1e-5)


def test_gradients_reach_trunk_and_head_and_it_saves(make: Make, tmp_path: Path) -> None:
    policy = make(keep_start=False)
    critic = Critic.from_policy(policy)
    assert isinstance(critic, Model)
    rollout = policy.encode(SAMPLES)
    critic.evaluate(rollout)["values"].sum().backward()
    assert all(p.grad is not None for p in critic.module.parameters())
    critic.save(tmp_path)
    critic.module.eval()
    loaded = Critic.load(tmp_path)
    assert torch.equal(loaded.evaluate(rollout)["values"], critic.evaluate(rollout)["values"])


def test_a_trunk_that_sees_later_tokens_is_refused() -> None:
    from transformers import BertConfig, BertForTokenClassification

    config = BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        num_labels=1,
        initializer_range=1.0,
    )
    with pytest.raises(ValueError, match="causal"):
        Critic(BertForTokenClassification(config))


def test_only_values_and_one_label(make: Make) -> None:
    policy = make(keep_start=False)
    critic = Critic.from_policy(policy)
    with pytest.raises(KeyError, match="values"):
        critic.evaluate(policy.encode(SAMPLES), ("logps",))
    critic.module.config.num_labels = 2
    with pytest.raises(ValueError, match="one label"):
        Critic(critic.module)
