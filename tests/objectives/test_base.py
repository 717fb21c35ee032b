"""Weights, normalisers and the one reduction."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from rewardkit.objectives.base import Loss, element_weights, mean, normaliser, objective, pairs_of, reduce_loss, spec

MASK = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
VALUE = torch.tensor([[1.0, 2.0, 3.0], [10.0, 77.0, 77.0], [77.0, 77.0, 77.0]])


@objective(per="token")
def token(value: torch.Tensor) -> Loss:
    return Loss(value)


@pytest.mark.parametrize(
    ("reduce", "want"),
    [
        ("tokens", (6 + 10) / 4),
        ("sequences", (2 + 10) / 2),
        ("sequence_sums", (6 + 10) / 2),
        ("constant", (6 + 10) / (2 * 5)),
    ],
)
def test_each_reduction_of_a_ragged_batch_by_hand(reduce: str, want: float) -> None:
    """R2, R3: rows of 3 and 1 positions, and one wholly masked row that is in no denominator."""
    assert mean(Loss(VALUE), MASK, token, reduce, length=5).item() == pytest.approx(want)  # type: ignore[arg-type]


def test_constant_needs_a_length() -> None:
    with pytest.raises(ValueError, match="needs length"):
        mean(Loss(VALUE), MASK, token, "constant")


def test_fractional_weights_count_as_fractions() -> None:
    mask = torch.tensor([[0.5, 1.0]])
    assert mean(Loss(torch.tensor([[2.0, 4.0]])), mask, token).item() == pytest.approx(5 / 1.5)


def test_a_pair_or_group_counts_only_if_two_of_its_rows_train() -> None:
    assert element_weights(MASK, "pair", pairs=torch.tensor([[0, 1], [0, 2]])).tolist() == [1.0, 0.0]
    assert element_weights(MASK, "group", group=torch.tensor([3, 3, 1])).tolist() == [0.0, 1.0]
    assert element_weights(MASK, "group", group=torch.tensor([3, 1, 1])).tolist() == [0.0, 0.0]
    for per in ("pair", "group"):
        with pytest.raises(ValueError, match="needs"):
            element_weights(MASK, per)  # type: ignore[arg-type]


def test_normalisers_add_over_shards() -> None:
    """R1: the sum of the shards' denominators is the batch's."""
    for reduce in ("tokens", "sequences", "sequence_sums", "constant"):
        whole = normaliser(element_weights(MASK, "token", reduce), "token", reduce, length=4)
        parts = [normaliser(element_weights(m[None], "token", reduce), "token", reduce, length=4) for m in MASK]
        torch.testing.assert_close(sum(parts), whole)


def test_nothing_trained_is_zero_with_a_graph() -> None:
    value = torch.full((2,), float("nan"), requires_grad=True)
    loss = reduce_loss(value, torch.zeros(2), 0.0)
    loss.backward()
    assert loss.item() == 0
    assert value.grad is not None
    assert value.grad.tolist() == [0.0, 0.0]


def test_a_loss_of_another_shape_than_its_weights_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(2,\) meets weights of shape \(3,\)"):
        reduce_loss(torch.zeros(2), torch.zeros(3), 1.0)


def test_spec_looks_through_partials_and_refuses_other_functions() -> None:
    assert spec(partial(partial(token))).per == "token"
    assert spec(objective(per="pair")(lambda: None)).scope == "group"
    with pytest.raises(TypeError, match="not an objective"):
        spec(len)


def test_pairs_with_ties_and_unranked_rows() -> None:
    group, rank = torch.tensor([0, 0, 0, 1]), torch.tensor([1, 0, 1, 0])
    assert pairs_of(group, rank).tolist() == [[1, 0], [1, 2]]
    assert pairs_of(group, rank, ties=True).tolist() == [[0, 2], [1, 0], [1, 2]]
    assert pairs_of(group, torch.tensor([1, -1, 1, 0])).tolist() == []


@pytest.mark.parametrize("reduce", ["tokens", "sequences", "sequence_sums", "constant"])
def test_twice_the_weight_of_a_row_is_two_copies_of_it(reduce: str) -> None:
    mask, value = MASK[:2] * torch.tensor([[1.0], [2.0]]), VALUE[:2]
    copied = mean(Loss(VALUE[[0, 1, 1]]), MASK[[0, 1, 1]], token, reduce, length=5)  # type: ignore[arg-type]
    assert mean(Loss(value), mask, token, reduce, length=5).item() == pytest.approx(copied.item())  # type: ignore[arg-type]


def test_groups_whose_rows_are_not_compared_count_nothing() -> None:
    """R2: rank -1 takes no part, and a tie compares only where a loss says so."""
    group, mask = torch.tensor([0, 0, 1, 1, 2, 2]), torch.ones(6, 1)
    rank = torch.tensor([0, 1, 0, -1, 0, 0])
    assert element_weights(mask, "group", group=group, rank=rank).tolist() == [1.0, 0.0, 0.0]
    assert element_weights(mask, "group", group=group, rank=rank, ties=True).tolist() == [1.0, 0.0, 1.0]
    mask[0] = 0.0
    assert element_weights(mask, "group", group=group, rank=rank).tolist() == [0.0, 0.0, 0.0]
