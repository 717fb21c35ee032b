"""Plain functions as rewards: TRL's, verl's, one sample."""

import asyncio
import functools

import pytest
import torch

from rewardkit.rewards.base import describe
from rewardkit.rewards.function import form_of, function_reward
from rewardkit.rewards.ops import gate
from rewardkit.types import ERROR, MISSING, OK, Rollout, Sample, Scores


def _rollout(outputs=("one", "two", "three"), prompt="Hi", hidden=None, **inputs) -> Rollout:
    hidden = hidden or [{} for _ in outputs]
    samples = [Sample(prompt, o, hidden=h) for o, h in zip(outputs, hidden, strict=True)]
    return Rollout(samples, torch.ones(len(samples), 2), inputs=inputs)


def test_trl_functions_get_what_trl_gives_them() -> None:
    seen = {}

    def reward(prompts, completions, completion_ids, **kwargs):
        seen.update(kwargs, prompts=prompts, completions=completions, completion_ids=completion_ids)
        kwargs["log_extra"]("length", [len(c) for c in completions])
        kwargs["log_metric"]("mean", 4.0)
        return [float(len(c)) for c in completions]

    made = function_reward(reward)
    hidden = [{"answer": 1}, {"answer": 2}, {"answer": 3, "rare": "x"}]
    found = made(_rollout(hidden=hidden, output_ids=[[1], [2, 3], [4]]), {"step": 7})
    assert found.outcome.tolist() == [3.0, 3.0, 5.0]
    assert seen["prompts"] == ["Hi"] * 3
    assert seen["completions"] == ["one", "two", "three"]
    assert seen["completion_ids"] == [[1], [2, 3], [4]]
    assert seen["answer"] == [1, 2, 3]
    assert seen["rare"] == [None, None, "x"]
    assert seen["trainer_state"].global_step == 7
    assert found.cost.calls == 3
    assert describe(found)["reward/mean"] == 4.0
    given = {"log_extra": lambda name, column: seen.update({name: column}), "log_metric": lambda name, value: None}
    assert "reward/mean" not in describe(made(_rollout(hidden=hidden, output_ids=[[1], [2, 3], [4]]), given))
    assert seen["length"] == [3, 3, 5]


def test_conversational_prompts_give_conversational_completions() -> None:
    prompt = [{"role": "user", "content": "Hi"}]

    def reward(completions, **kwargs):
        return [float(len(c[0]["content"])) for c in completions]

    assert function_reward(reward)(_rollout(prompt=prompt)).outcome.tolist() == [3.0, 3.0, 5.0]
    spoken = [[{"role": "assistant", "content": o}] for o in ("a", "bb")]
    assert function_reward(reward)(_rollout(spoken, prompt)).outcome.tolist() == [1.0, 2.0]
    assert function_reward(lambda completions: [len(c) for c in completions])(_rollout(spoken)).outcome.tolist() == [
        1,
        2,
    ]


def test_judges_read_the_users_own_words() -> None:
    sample = Sample("rewritten", "out", source="the user's")
    seen = []
    function_reward(lambda prompts, completions: seen.extend(prompts) or [0.0])(Rollout([sample], torch.ones(1, 1)))
    assert seen == ["the user's"]


def test_none_is_missing_and_zero_is_a_score() -> None:
    """R56, R66."""
    found = function_reward(lambda completions, **kwargs: [None, 0.0, 0])(_rollout())
    assert found.status.tolist() == [MISSING, OK, OK]
    assert found.outcome.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "good", [1.0]])
def test_what_is_no_number_is_an_error_with_its_message(value) -> None:
    found = function_reward(lambda completions: [1.0, value, True])(_rollout())
    assert found.status.tolist() == [OK, ERROR, OK]
    assert found.outcome.tolist() == [1.0, 0.0, 1.0]
    assert found.why is not None
    assert found.why[1]


def test_a_wrong_number_of_rewards_is_refused() -> None:
    with pytest.raises(ValueError, match="returned 1 rewards for 3 rows"):
        function_reward(lambda completions: [1.0], name="short")(_rollout())


def test_an_exception_is_an_error_in_its_row_and_never_a_number(caplog) -> None:
    """R66: a grader that is down never becomes a column of zeros; small batches (behind a gate) are no exception."""

    def picky(sample):
        return 1.0 / (len(sample.output) - 3)

    found = function_reward(picky)(_rollout())
    assert found.status.tolist() == [ERROR, ERROR, OK]
    assert found.why == ["ZeroDivisionError: float division by zero"] * 2 + [None]
    alone = function_reward(picky)(_rollout(("one",)))
    assert alone.status.tolist() == [ERROR]
    assert alone.why == ["ZeroDivisionError: float division by zero"]
    assert function_reward(picky).otherwise(-1.0)(_rollout(("one", "two"))).outcome.tolist() == [-1.0, -1.0]
    gated = gate(function_reward(lambda sample: float(sample.output == "one"), name="t"), function_reward(picky), 0.0)
    assert gated(_rollout()).status.tolist() == [ERROR, OK, OK]

    def down(completions, **kwargs):
        raise ConnectionError("no judge")

    async def away(completions, **kwargs):
        raise ConnectionError("no judge")

    for fn in (down, away):
        found = function_reward(fn)(_rollout())
        assert found.status.tolist() == [ERROR] * 3
        assert found.why == ["ConnectionError: no judge"] * 3
        assert f"'{fn.__name__}' failed on all 3 rows" in caplog.text
    with pytest.raises(TypeError):
        function_reward(lambda completions: 1.0)(_rollout())


def test_verl_functions_read_their_fields() -> None:
    def compute_score(data_source, solution_str, ground_truth, extra_info=None):
        return {"score": float(solution_str == ground_truth), "index": extra_info["index"], "note": "text"}

    hidden = [
        {"data_source": "gsm8k", "ground_truth": "one", "extra_info": {"index": 4}},
        {"data_source": "gsm8k", "reward_model": {"ground_truth": "no"}, "extra_info": {"index": 5}},
    ]
    made = function_reward(compute_score)
    found = made(_rollout(("one", "two"), hidden=hidden))
    assert found.outcome.tolist() == [1.0, 0.0]
    assert found.before["index"].outcome.tolist() == [4.0, 5.0]
    assert describe(found)["reward/index"] == 4.5
    assert "note" not in found.before
    broken = made(_rollout(("one", "two"), hidden=[hidden[0], {"data_source": "gsm8k"}]))
    assert broken.status.tolist() == [OK, ERROR]
    assert "ground_truth" in broken.why[1]
    assert broken.before["index"].status.tolist() == [OK, MISSING]


def test_forms_are_told_by_parameter_names() -> None:
    assert form_of(lambda prompts, completions, **k: None) == "trl"
    assert form_of(lambda completions: None) == "trl"
    assert form_of(lambda **k: None) == "trl"
    assert form_of(lambda solution_str, ground_truth: None) == "verl"
    assert form_of(lambda sample, strict=True: None) == "sample"
    with pytest.raises(TypeError, match="is no reward function"):
        form_of(lambda a, b: None)


def test_a_column_that_is_missing_is_named() -> None:
    def reward(completions, answer):
        return [1.0] * len(completions)

    with pytest.raises(ValueError, match=r"asks for \['answer'\].*add the column"):
        function_reward(reward)(_rollout())
    assert function_reward(reward)(_rollout(hidden=[{"answer": 1, "other": 2}] * 3)).outcome.tolist() == [1.0] * 3


def test_functions_made_in_a_loop_stay_apart() -> None:
    """R63: no late binding; the last function is not applied to all."""
    made = [function_reward(fn, name=fn.__name__) for fn in _lengths()]
    assert [r(_rollout()).outcome[0].item() for r in made] == [0.0, 1.0, 2.0]
    assert [s.outcome[0].item() for s in sum(made)(_rollout()).parts.values()] == [0.0, 1.0, 2.0]


def _lengths():
    def build(i):
        def fn(completions, **kwargs):
            return [float(i)] * len(completions)

        fn.__name__ = f"r{i}"
        return fn

    return [build(i) for i in range(3)]


def test_async_functions_are_gathered() -> None:
    running = {"now": 0, "most": 0}

    async def judge(sample):
        running["now"] += 1
        running["most"] = max(running["most"], running["now"])
        await asyncio.sleep(0.01)
        running["now"] -= 1
        if sample.output == "two":
            raise TimeoutError("slow")
        return float(len(sample.output))

    found = function_reward(judge)(_rollout())
    assert running["most"] == 3
    assert found.status.tolist() == [OK, ERROR, OK]
    assert found.outcome.tolist() == [3.0, 0.0, 5.0]

    async def batch(completions, **kwargs):
        await asyncio.sleep(0)
        return [1.0, None, 2.0]

    async def inside_a_loop() -> Scores:
        return function_reward(batch)(_rollout())

    assert asyncio.run(inside_a_loop()).status.tolist() == [OK, MISSING, OK]


def test_async_rewards_of_a_sum_wait_together() -> None:
    order = []

    def slow(tag):
        async def fn(completions, **kwargs):
            order.append(f"begin {tag}")
            await asyncio.sleep(0.2)
            order.append(f"end {tag}")
            return [1.0] * len(completions)

        fn.__name__ = tag
        return function_reward(fn)

    assert (slow("a") + slow("b"))(_rollout()).outcome.tolist() == [2.0, 2.0, 2.0]
    assert {order[0], order[1]} == {"begin a", "begin b"}


def test_partials_objects_and_names() -> None:
    def scaled(completions, by=1.0, **kwargs):
        return [by] * len(completions)

    class Judge:
        async def __call__(self, sample):
            return 2.0

    assert function_reward(functools.partial(scaled, by=3.0))(_rollout()).outcome.tolist() == [3.0] * 3
    assert function_reward(functools.partial(scaled, by=3.0)).name == "scaled"
    judge = function_reward(Judge())
    assert judge.name == "Judge"
    assert judge.concurrent
    assert judge(_rollout()).outcome.tolist() == [2.0] * 3


def test_scope_is_declared_and_checked() -> None:
    assert function_reward(lambda completions: [], scope="group").scope == "group"
    with pytest.raises(ValueError, match="scope"):
        function_reward(lambda completions: [], scope="all")


def test_an_empty_batch() -> None:
    assert len(function_reward(lambda completions: [])(Rollout([], torch.zeros(0, 1)))) == 0
