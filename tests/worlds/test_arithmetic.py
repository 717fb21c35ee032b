"""World arithmetic: chains, answers, annotators."""

from __future__ import annotations

import numpy as np
import pytest

from rewardkit.policies.language import LanguagePolicy
from rewardkit.types import Sample
from rewardkit.worlds.arithmetic import Arithmetic, answer_of, chain_of, held_out, results, right, steps_right

TINY = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def test_chains_are_worked_from_the_left_and_stay_between_0_and_19() -> None:
    rng = np.random.default_rng(0)
    assert results("9-9a*3b+1c=") == [0, 0, 1]
    for depth in (1, 3, 5):
        for _ in range(200):
            found = results(chain_of(depth, rng))
            assert len(found) == depth
            assert 0 <= min(found) <= max(found) <= 19


@pytest.mark.parametrize(("reply", "ended", "answer", "steps"), [
    ("a12b24c15", "done", True, 1.0), ("a12b24c15", "cut", False, 1.0), ("15", "done", True, 0.0),
    ("a12b24c14", "done", False, 2 / 3), ("", "done", False, 0.0), ("a12b24c15c15", "done", True, 1.0),
])  # fmt: skip
def test_gold_reads_the_last_number_and_annotators_the_steps(
    reply: str, ended: str, answer: bool, steps: float
) -> None:
    sample = Sample("7+5a*2b-9c=", reply, ended=ended)  # type: ignore[arg-type]
    assert right(sample) == answer
    assert steps_right(sample) == pytest.approx(steps)
    assert Arithmetic().liking(sample) == pytest.approx(0.5 * answer + 0.5 * steps)
    assert answer_of(reply) == reply.split("c")[-1]


def test_prompts_are_different_and_test_prompts_apart() -> None:
    world = Arithmetic(depths=(2, 3))
    train, test = world.prompts(60, 0), world.prompts(60, 0, test=True)
    assert len({s.prompt for s in train + test}) == 120
    assert all(held_out(s.prompt) for s in test)
    assert [s.hidden["depth"] for s in train[:4]] == [2, 3, 2, 3]
    assert not any(held_out(s.prompt) for s in world.demonstrations(300, 0))


def test_demonstrations_slip_and_go_on_from_what_they_wrote() -> None:
    world = Arithmetic(slip=0.2)
    made = world.demonstrations(800, 0)
    wrong = np.mean([not right(s) for s in made if len(results(s.prompt)) == 1])
    assert 0.1 < wrong < 0.3
    assert np.mean([right(s) for s in Arithmetic(slip=0.0).demonstrations(50, 0)]) == 1.0
    assert max(len(results(s.prompt)) for s in made) == 4


def test_numbers_are_digits_and_figures_are_figures() -> None:
    world = Arithmetic(depths=(1,))
    assert world.tokenizer.tokenize("a12b24") == ["a", "1", "2", "b", "2", "4"]
    policy = LanguagePolicy.scratch(world.tokenizer, TINY, length=40)
    found = world.measure(policy, n=2, prompts=4)
    assert set(found) == {"gold", "distinct", "kl"}
    assert abs(found["kl"]) < 1e-3
    with pytest.raises(ValueError, match="depths"):
        Arithmetic(depths=(9,))
