import importlib
from dataclasses import replace

import pytest
from benchmarks.speed.compare import gap
from benchmarks.speed.grpo import even_words
from benchmarks.speed.model import write
from benchmarks.speed.settings import Shape, setting
from benchmarks.speed.timing import Clock, peak_memory

TINY = Shape(layers=1, width=16, heads=2, kv_heads=1, intermediate=24, vocabulary=90)

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*every output was cut off"),
]


def small(name):
    chosen = setting(name)
    response = (6, 6) if name == "grpo" else (3, 12)
    return replace(chosen, shape=TINY, prompt=9, response=response, units=chosen.batch)


@pytest.mark.parametrize("name", ["dpo_shared", "reward_model", "best_of_n", "grpo"])
def test_both_sides_make_the_stated_steps_and_compute_the_same(name, tmp_path):
    chosen = small(name)
    write(chosen, tmp_path)
    module = importlib.import_module(f"benchmarks.speed.{chosen.kind}")
    ours, peer = module.ours(chosen, tmp_path), module.peer(chosen, tmp_path)
    assert ours.seconds > 0
    assert peer.seconds > 0
    assert gap(ours.evidence or peer.expected, peer.evidence) < 1e-4
    if name in ("dpo_shared", "reward_model"):
        assert len(ours.evidence) == chosen.steps + 1
        assert len({round(loss, 6) for loss in ours.evidence}) > 1


def test_a_clock_refuses_another_number_of_steps():
    clock = Clock("cpu")
    clock.tick()
    clock.tick()
    assert clock.seconds(1) >= 0
    with pytest.raises(RuntimeError, match="2 steps were made"):
        clock.seconds(2)


def test_peak_memory_is_in_bytes():
    assert 2**25 < peak_memory("cpu") < 2**40


def test_the_reward_reads_words_alone():
    assert even_words(["w2 <pad> w3", "", "w4"]) == [0.5, 0.0, 1.0]
