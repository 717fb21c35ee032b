"""Judgements as rows with tensors."""

from __future__ import annotations

import pytest
import torch

from rewardkit.data import attach, comparison_rows, labelled_rows, rated_rows
from rewardkit.data.rows import places
from rewardkit.objectives.base import pairs_of
from rewardkit.policies.table import TablePolicy
from rewardkit.types import Judgement, Sample


def judged(prompt: str, outputs: str, **said: object) -> Judgement:
    return Judgement(tuple(Sample(prompt, o) for o in outputs), **said)  # type: ignore[arg-type]


def thumb(prompt: str, output: str, up: bool, weight: float = 1.0) -> Judgement:
    return Judgement((Sample(prompt, output),), rating=(float(up),), weight=weight)


def test_pairs_and_rankings_become_rows_in_order() -> None:
    rows = comparison_rows([judged("x", "ab", rank=(0, 1)), judged("y", "abc", rank=(2, 0, 2), weight=0.5)])
    assert [(s.prompt, s.output) for s in rows.samples] == [("x", "a"), ("x", "b"), ("y", "a"), ("y", "b"), ("y", "c")]
    assert rows.group.tolist() == [0, 0, 1, 1, 1]
    assert rows.tensors["rank"].tolist() == [0, 1, 2, 0, 2]
    assert rows.tensors["weight"].tolist() == [1.0, 1.0, 0.5, 0.5, 0.5]
    assert set(rows.tensors) == {"rank", "weight"}
    assert pairs_of(rows.group, rows.tensors["rank"]).tolist() == [[0, 1], [3, 2], [3, 4]]


def test_ties_have_equal_rank_and_give_no_pair() -> None:
    rows = comparison_rows(
        [judged("x", "ab", rank=(0, 0)), judged("y", "ab", rating=(2.0, 2.0)), judged("z", "ab", p=(0.5, 0.5))]
    )
    assert rows.tensors["rank"].tolist() == [0] * 6
    assert len(pairs_of(rows.group, rows.tensors["rank"])) == 0
    assert rows.tensors["p"].tolist() == [0.5] * 6


def test_ratings_and_votes_give_places() -> None:
    rows = comparison_rows([judged("x", "abc", rating=(1.0, 3.0, 2.0)), judged("y", "ab", p=(0.3, 0.7))])
    assert rows.tensors["rank"].tolist() == [2, 0, 1, 1, 0]
    assert rows.tensors["p"].tolist() == pytest.approx([0, 1, 0, 0.3, 0.7])


def test_strength_is_there_where_any_judgement_has_one() -> None:
    rows = comparison_rows([judged("x", "ab", rank=(0, 1), strength=2.0), judged("y", "ab", rank=(0, 1))])
    assert rows.tensors["strength"].tolist() == [2.0, 2.0, 0.0, 0.0]


def test_swapping_a_pair_swaps_its_rows_and_nothing_else() -> None:
    """R23: chosen and rejected are treated alike."""
    there = comparison_rows([judged("x", "ab", rank=(0, 1), strength=1.5)])
    back = comparison_rows([judged("x", "ba", rank=(1, 0), strength=1.5)])
    assert [s.output for s in there.samples] == [s.output for s in back.samples][::-1]
    assert there.tensors["rank"].tolist() == back.tensors["rank"].flip(0).tolist()
    assert torch.equal(there.tensors["strength"], back.tensors["strength"])


def test_what_orders_nothing_is_no_comparison() -> None:
    with pytest.raises(ValueError, match="judgement 0 is of one item"):
        comparison_rows([thumb("x", "a", True)])
    with pytest.raises(ValueError, match="orders nothing"):
        places(judged("x", "ab", note="hm"))


def test_no_judgements_give_no_rows() -> None:
    for rows in (comparison_rows([]), rated_rows([]), labelled_rows([])):
        assert len(rows) == 0
        assert rows.group.dtype == torch.long
        assert not rows.group.is_floating_point()


def test_encoded_rows_carry_groups_and_tensors() -> None:
    policy = TablePolicy(["x", "y"], ["a", "b", "c"])
    rows = comparison_rows([judged("y", "ab", rank=(0, 1)), judged("x", "cab", rank=(0, 1, 2))])
    rollout = attach(policy.encode(rows.samples), rows)
    assert rollout.group.tolist() == rollout.family.tolist() == [0, 0, 1, 1, 1]
    assert rollout["rank"].tolist() == [0, 1, 0, 1, 2]
    with pytest.raises(ValueError, match="the rollout has 5 rows, the judgements have 2"):
        attach(rollout, comparison_rows([judged("y", "ab", rank=(0, 1))]))


def test_ratings_become_rows() -> None:
    rows = rated_rows([judged("x", "a", rating=(3.0,), weight=2.0), judged("y", "ab", rating=(1.0, 0.0))])
    assert rows.tensors["rating"].tolist() == [3.0, 1.0, 0.0]
    assert rows.tensors["weight"].tolist() == [2.0, 1.0, 1.0]
    assert rows.group.tolist() == [0, 1, 1]
    with pytest.raises(ValueError, match="judgement 0 has no rating"):
        rated_rows([judged("x", "ab", rank=(0, 1))])


@pytest.mark.parametrize("size", [2, 3, 4, 5, 7])
def test_mismatched_rows_join_each_prompt_with_the_next_completion(size: int) -> None:
    """R45: for odd batches as for even ones, in order and reversed."""
    for order in (1, -1):
        batch = [thumb(f"p{i}", f"o{i}", i % 2 == 0) for i in range(size)][::order]
        rows = labelled_rows(batch)
        assert rows.tensors["label"].tolist() == [int(j.rating == (1.0,)) for j in batch] + [-1] * size
        wrong = [(s.prompt, s.output) for s in rows.samples[size:]]
        assert wrong == [(batch[i].items[0].prompt, batch[(i + 1) % size].items[0].output) for i in range(size)]
        assert all(p[1:] != o[1:] for p, o in wrong)
        assert len(set(rows.group.tolist())) == 2 * size


def test_a_row_is_never_joined_with_itself_nor_with_its_own_prompt() -> None:
    """R45: a matched pair among the mismatched would bias the KL estimate."""
    assert len(labelled_rows([thumb("p", "a", True)])) == 1
    assert labelled_rows([thumb("p", "a", True), thumb("p", "b", False)]).tensors["label"].tolist() == [1, 0]
    rows = labelled_rows([thumb("p", "a", True), thumb("p", "b", False), thumb("q", "c", True)])
    assert [(s.prompt, s.output) for s in rows.samples[3:]] == [("p", "c"), ("p", "c"), ("q", "a")]


def test_mismatched_rows_take_how_the_completion_ended_and_can_be_left_out() -> None:
    cut = Judgement((Sample("p", "a", ended="cut"),), rating=(1.0,))
    rows = labelled_rows([cut, thumb("q", "b", False, weight=3.0)])
    assert [s.ended for s in rows.samples] == ["cut", "done", "done", "cut"]
    assert rows.tensors["weight"].tolist() == [1.0, 3.0, 1.0, 1.0]
    assert len(labelled_rows([cut], mismatched=False)) == 1


def test_a_grade_is_no_label() -> None:
    with pytest.raises(ValueError, match="judgement 0 is no thumb"):
        labelled_rows([judged("x", "a", rating=(0.5,))])
