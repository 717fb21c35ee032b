"""The oracles catch what they are for: each is given a function that is wrong in one way."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rewardkit import testing
from rewardkit.objectives.base import Loss, objective
from rewardkit.objectives.preference import dpo
from rewardkit.policies.table import TablePolicy
from rewardkit.types import Sample

Rule = Callable[..., dict[str, Tensor]]


@objective(per="token")
def writes(logps: Tensor) -> Loss:
    with torch.no_grad():
        logps.add_(1.0)
    return Loss(-logps.clone())


@objective(per="token")
def trains_the_reference(logps: Tensor, ref_logps: Tensor, mask: Tensor) -> Loss:
    return Loss(torch.where(mask > 0, logps - ref_logps, 0.0))


@objective(per="token")
def metric_with_graph(logps: Tensor) -> Loss:
    return Loss(-logps, {"nll": -logps})


@objective(per="token")
def normalises_itself(logps: Tensor, mask: Tensor) -> Loss:
    return Loss(-logps / mask.sum())


@objective(per="token")
def couples_the_batch(logps: Tensor, mask: Tensor) -> Loss:
    inside = torch.where(mask > 0, logps, 0.0)
    return Loss(-(inside - inside.mean(0)))


@objective(per="sample")
def averages_over_padding(logps: Tensor, mask: Tensor) -> Loss:
    return Loss(-torch.where(mask > 0, logps, 0.0).mean(-1))


@objective(per="token")
def multiplies_by_the_mask(logps: Tensor, advantages: Tensor, mask: Tensor) -> Loss:
    return Loss(-torch.exp(logps) * advantages * mask)


@objective(per="token")
def depends_on_row_order(logps: Tensor) -> Loss:
    return Loss(-logps * (1 + torch.arange(len(logps), dtype=logps.dtype)[:, None]))


@objective(per="sample")
def divides_by_length(logps: Tensor, mask: Tensor) -> Loss:
    return Loss(-(logps * mask).sum(-1) / mask.sum(-1))


@objective(per="token")
def drops_to_half(logps: Tensor) -> Loss:
    return Loss(-logps.half().float())


@objective(per="pair")
def overflows(scores: Tensor, pairs: Tensor) -> Loss:
    return Loss(torch.log(1 + torch.exp(scores[pairs[:, 1]] - scores[pairs[:, 0]])))


@objective(per="token")
def detaches(logps: Tensor) -> Loss:
    return Loss(-(logps * logps.detach()))


@objective(per="pair")
def treats_the_chosen_differently(scores: Tensor, pairs: Tensor) -> Loss:
    return Loss(F.softplus(scores[pairs[:, 1]] - 1.1 * scores[pairs[:, 0]]))


@objective(per="pair")
def counts_ties_as_wrong(logps: Tensor, ref_logps: Tensor, mask: Tensor, pairs: Tensor) -> Loss:
    found = dpo(logps, ref_logps, mask, pairs)
    return Loss(found.value, {"accuracy": (found.metrics["margin"] > 0).to(found.value.dtype)})


@pytest.mark.parametrize(
    ("fn", "oracle", "message"),
    [
        (writes, "pure", "wrote to its argument logps"),
        (trains_the_reference, "pure", "a gradient reaches ref_logps"),
        (metric_with_graph, "pure", "metric nll must be"),
        (normalises_itself, "micro_batches", "the loss"),
        (couples_the_batch, "micro_batches", "the loss"),
        (averages_over_padding, "padding", "padding on the"),
        (multiplies_by_the_mask, "nan_outside", "nan outside the mask"),
        (depends_on_row_order, "row_order", "rows permuted"),
        (divides_by_length, "all_masked", "gradient of logps"),
        (drops_to_half, "precision", "float32"),
        (overflows, "extreme", "not finite"),
        (detaches, "gradients", "not that of the value"),
        (treats_the_chosen_differently, "label_swap", "labels and rewards both swapped"),
        (counts_ties_as_wrong, "at_reference", "metric accuracy"),
    ],
)
def test_an_oracle_catches_a_wrong_objective(fn: Callable[..., Loss], oracle: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        testing.OBJECTIVE_ORACLES[oracle].run(fn, testing.language_batch(0))


@objective(per="sample", scope="group")
def divides_by_the_others(scores: Tensor, group: Tensor) -> Loss:
    size = (group[:, None] == group[None, :]).sum(1)
    return Loss(scores / (size - 1))


def test_a_division_by_the_other_rows_is_seen_in_groups_of_one() -> None:
    with pytest.raises(AssertionError, match="groups of one row: the loss is not finite"):
        testing.group_of_one(divides_by_the_others, testing.language_batch(0))


def test_check_says_which_oracle_and_seed_failed_and_lists_those_that_ran() -> None:
    with pytest.raises(AssertionError, match="oracle 'precision', seed 0: treats_the_chosen_differently in"):
        testing.check(treats_the_chosen_differently, testing.language_batch)
    ran = testing.check(partial(dpo, beta=0.2), testing.language_batch, seeds=(3,), skip=("gradients",))
    assert set(ran) == set(testing.OBJECTIVE_ORACLES) - {"gradients"}
    with pytest.raises(KeyError, match="no oracle is called"):
        testing.check(dpo, testing.language_batch, skip=("speed",))


def test_a_batch_without_padding_is_refused_where_it_would_test_nothing() -> None:
    full = {**testing.language_batch(0), "mask": torch.ones(12, 6)}
    with pytest.raises(AssertionError, match="mask is 0 somewhere"):
        testing.nan_outside(dpo, full)


def centred(returns: Tensor, group: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """A correct rule: the mean return of a row, less that of its group's trained rows."""
    inside = torch.where(mask > 0, returns, 0.0) * mask
    row = inside.sum(-1) / mask.sum(-1).clamp(min=1e-9)
    alive = (mask > 0).any(-1).to(row.dtype)
    same = (group[:, None] == group[None, :]).to(row.dtype) * alive[None, :]
    mean = (same * row[None, :]).sum(1) / same.sum(1).clamp(min=1)
    return {"advantages": (row - mean)[:, None].expand_as(mask)}


def test_a_correct_credit_rule_passes() -> None:
    assert testing.check_credit(centred, testing.language_batch) == list(testing.CREDIT_ORACLES)


def _wrong(change: Callable[[dict[str, Any]], dict[str, Tensor]]) -> Rule:
    def rule(returns: Tensor, group: Tensor, mask: Tensor) -> dict[str, Tensor]:
        return change({"returns": returns, "group": group, "mask": mask})

    return rule


@pytest.mark.parametrize(
    ("change", "oracle"),
    [
        (lambda n: {"advantages": n["returns"].mul_(2)}, "pure"),
        (lambda n: {"advantages": n["returns"].mean(-1, keepdim=True).expand_as(n["mask"])}, "padding"),
        (lambda n: {"advantages": n["returns"] * torch.arange(len(n["mask"]))[:, None]}, "row_order"),
        (lambda n: {"advantages": n["returns"] * n["group"][:, None]}, "row_order"),
        (lambda n: {"advantages": (n["returns"] * n["mask"]).sum(-1)}, "nan_outside"),
        (lambda n: {"advantages": 1 / n["mask"].sum(-1)}, "all_masked"),
        (
            lambda n: {"advantages": 1 / ((n["group"][:, None] == n["group"][None, :]).sum(1) - 1.0)},
            "group_of_one",
        ),
        (
            lambda n: {"advantages": torch.where(n["mask"] > 0, n["returns"], 0.0).sum() + 0 * n["mask"]},
            "independent_groups",
        ),
        (lambda n: {"advantages": torch.where(n["mask"] > 0, n["returns"] + 3e5, 0) - 3e5}, "precision"),
    ],
)
def test_an_oracle_catches_a_wrong_credit_rule(change: Any, oracle: str) -> None:
    with pytest.raises(AssertionError):
        testing.CREDIT_ORACLES[oracle](_wrong(change), testing.language_batch(0))


def test_expectations_over_a_table_are_exact() -> None:
    policy = TablePolicy(["x"], [0, 1], 2, logits=torch.zeros(1, 3, 2, dtype=torch.float64))

    def both(sample: Sample) -> float:
        return float(sum(sample.output) == 2)

    assert testing.expectation(policy, "x", both).item() == pytest.approx(0.25)
    # d/dlogit of p(1) p(1 | 1): 0.25 * (1 - 0.5) at the root and after 1, nothing after 0
    want = torch.tensor([[[-0.125, 0.125], [0.0, 0.0], [-0.125, 0.125]]], dtype=torch.float64)
    torch.testing.assert_close(testing.exact_gradient(policy, "x", both), want)
