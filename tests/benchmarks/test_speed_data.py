from dataclasses import replace

import pytest
import torch
from benchmarks.speed.arithmetic import PASSES, forward, operations, tokens
from benchmarks.speed.data import EOS, examples, measured, text, tokenizer, words
from benchmarks.speed.model import build
from benchmarks.speed.settings import NAMES, QWEN_HALF_B, Shape, setting
from torch.utils.flop_counter import FlopCounterMode

TINY = Shape(layers=1, width=16, heads=2, kv_heads=1, intermediate=24, vocabulary=90)


def test_the_comparisons_have_the_stated_names():
    assert NAMES == ("dpo_shared", "dpo_unshared", "dpo_long", "grpo", "reward_model", "best_of_n", "memory")


@pytest.mark.parametrize(
    ("name", "prompt", "low", "high", "units", "responses"),
    [
        ("dpo_shared", 300, 21, 119, 64, 2),
        ("dpo_unshared", 16, 100, 300, 64, 2),
        ("dpo_long", 1000, 15, 85, 16, 2),
        ("grpo", 300, 64, 64, 8, 8),
        ("reward_model", 300, 21, 119, 64, 2),
        ("best_of_n", 300, 20, 120, 8, 16),
        ("memory", 300, 21, 119, 8, 2),
    ],
)
def test_examples_have_the_stated_lengths_and_are_the_same_each_time(name, prompt, low, high, units, responses):
    chosen = setting(name)
    data = examples(chosen)
    assert data == examples(chosen)
    assert data != examples(replace(chosen, seed=1))
    assert len(measured(chosen)) == units == len(data) - chosen.warm
    assert {len(e.prompt) for e in data} == {prompt}
    assert {len(e.responses) for e in data} == {responses}
    sizes = [size for e in data for size in e.sizes]
    assert low <= min(sizes)
    assert max(sizes) <= high
    assert low == high or len(set(sizes)) > 5


def test_memory_and_the_long_prompt_have_sixteen_pairs_to_run():
    assert len(examples(setting("memory"))) == 16 == len(measured(setting("dpo_long")))


@pytest.mark.parametrize("name", ["dpo_shared", "grpo"])
def test_texts_and_token_ids_are_one_to_one(name):
    chosen = replace(setting(name), shape=TINY)
    made = tokenizer(chosen)
    example = examples(chosen)[0]
    whole = text(example.prompt) + text(example.responses[0]) + EOS
    assert made(whole)["input_ids"] == [*example.prompt, *example.responses[0], made.eos_token_id]
    assert made.decode(example.prompt) == text(example.prompt).strip()


def test_only_where_the_model_samples_is_eos_outside_its_vocabulary():
    for name in NAMES:
        chosen = setting(name)
        assert (words(chosen) < chosen.shape.vocabulary) == (name != "grpo")
        assert max(n for e in examples(chosen) for n in e.prompt) < chosen.shape.vocabulary


def test_a_shared_prompt_is_counted_once_in_the_arithmetic_and_with_each_response_in_the_tokens():
    chosen = setting("dpo_shared")
    (example,) = measured(replace(chosen, units=1))
    once = forward(chosen.shape, 300, example.sizes, head=True)
    apart = sum(forward(chosen.shape, 300, [size], head=True) for size in example.sizes)
    prompt = forward(chosen.shape, 300, [], head=True)
    assert once == apart - prompt
    assert operations(chosen, [example]) == PASSES["dpo"] * once
    assert tokens([example]) == 600 + sum(example.sizes)


def test_forward_counts_what_torch_counts():
    chosen = replace(setting("reward_model"), shape=TINY)
    model = build(chosen, tokenizer(chosen)).model
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.ones(1, 7, dtype=torch.long))
    # Torch counts all 7 * 7 places of the attention, we the 7 * 8 / 2 that are seen.
    unseen = 4 * TINY.width * (49 - 28)
    assert counter.get_total_flops() - unseen == forward(TINY, 7, [], head=False)


def test_a_gpu_gets_the_same_data_and_a_larger_model():
    large = setting("dpo_long", "cuda")
    assert large.shape == QWEN_HALF_B
    assert large.dtype == "bfloat16"
    assert (large.prompt, large.response, large.units) == (1000, (15, 85), 16)
