"""Fresh adapters: what trains, and that seeds alone decide their weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rewardkit.policies.adapters import add_lora
from rewardkit.policies.language import train_tokenizer
from rewardkit.policies.language.scratch import scratch_model

FIELDS: dict[str, Any] = {"r": 2, "target_modules": ["q_proj"]}
SIZE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def model() -> Any:
    return scratch_model(train_tokenizer(["Say yes. Say no."], 300), SIZE)


def test_a_config_or_its_fields_make_an_adapter_that_alone_trains() -> None:
    from peft import LoraConfig

    for lora in (FIELDS, LoraConfig(task_type="CAUSAL_LM", **FIELDS)):
        trained = [n for n, p in add_lora(model(), lora).named_parameters() if p.requires_grad]
        assert {n.split(".")[-3] for n in trained} == {"lora_A", "lora_B"}


def test_a_second_adapter_is_refused() -> None:
    with pytest.raises(ValueError, match=r"has an adapter already.*merge=True"):
        add_lora(add_lora(model(), FIELDS), FIELDS)


def test_an_adapter_is_a_function_of_its_seed_and_leaves_the_global_generator_alone() -> None:
    def adapter(seed: int) -> torch.Tensor:
        made = add_lora(model(), FIELDS, seed=seed)
        return next(p for n, p in made.named_parameters() if "lora_A" in n).detach()

    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = adapter(0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(first, adapter(0))
    assert not torch.equal(first, adapter(1))
