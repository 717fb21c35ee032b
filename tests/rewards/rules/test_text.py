"""Rules about text."""

import pytest
import torch

from rewardkit.rewards.rules import ExactMatch, Length
from rewardkit.types import ERROR, OK, Rollout, Sample


def _rollout(*outputs, hidden=None, **inputs) -> Rollout:
    mask = torch.tensor([[1.0, 1.0, 0.0]]).expand(len(outputs), 3).clone()
    return Rollout([Sample("x", o, hidden=hidden or {}) for o in outputs], mask, inputs=inputs)


def test_length_in_each_unit() -> None:
    outputs = ("Hello there", "", [{"role": "assistant", "content": "Hi you"}])
    assert Length()(_rollout(*outputs)).outcome.tolist() == [11.0, 0.0, 6.0]
    assert Length("words", scale=-0.5, cap=1)(_rollout(*outputs)).outcome.tolist() == [-0.5, 0.0, -0.5]
    ids = [[1, 2, 3], [3], [1, 3]]
    assert Length("tokens")(_rollout(*outputs, output_ids=ids)).outcome.tolist() == [3.0, 1.0, 2.0]
    with pytest.raises(ValueError, match="miles"):
        Length("miles")


def test_tokens_are_counted_in_a_rollout_that_has_them_alone() -> None:
    """Rows of a file have no tokens: one position each would make every length 1."""
    with pytest.raises(ValueError, match="take unit: words"):
        Length("tokens")(_rollout("Hello there"))


def test_an_output_that_the_policy_failed_to_give_is_its_own_failure() -> None:
    failed = Rollout([Sample("x", None, hidden={"answer": "None"}, ended="failed")], torch.ones(1, 1))
    for rule in (Length(), Length("words"), ExactMatch(), ExactMatch(extract="(.*)")):
        found = rule(failed)
        assert (found.outcome.tolist(), found.status.tolist()) == ([0.0], [OK])
    with pytest.raises(TypeError, match="NoneType has no text"):
        Length()(Rollout([Sample("x")], torch.ones(1, 1)))


def test_exact_match_takes_the_last_answer() -> None:
    rule = ExactMatch(extract=r"answer: (-?\w+)")
    outputs = ("answer: 3, no, answer: -4", "answer: 4", "I cannot say", "ANSWER: -4")
    assert rule(_rollout(*outputs, hidden={"answer": -4})).outcome.tolist() == [1.0, 0.0, 0.0, 0.0]


def test_exact_match_of_whole_outputs_and_case() -> None:
    assert ExactMatch()(_rollout(" Yes ", hidden={"answer": "yes"})).outcome.tolist() == [1.0]
    assert ExactMatch(case=True)(_rollout(" Yes ", hidden={"answer": "yes"})).outcome.tolist() == [0.0]


def test_a_row_without_an_answer_is_the_datas_failure_not_the_policys() -> None:
    found = ExactMatch()(_rollout("a"))
    assert found.status.tolist() == [ERROR]
    assert "no 'answer'" in found.why[0]
    assert ExactMatch(key="gold")(_rollout("a", hidden={"gold": "b"})).status.tolist() == [OK]
    with pytest.raises(ValueError, match="no regular expression"):
        ExactMatch(extract="(")
