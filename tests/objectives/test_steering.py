"""The steering loss: by hand, through the oracles, and the two traps."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from rewardkit import testing
from rewardkit.objectives.preference import simpo
from rewardkit.objectives.steering import steering


def batch(seed: int) -> dict:
    """Groups of six rows: a better and a worse one in each of three contexts."""
    names = testing.language_batch(seed, groups=3, size=6)
    place = torch.zeros_like(names["rank"])
    for g in names["group"].unique():
        rows = (names["group"] == g).nonzero()[:, 0]
        place[rows] = torch.arange(len(rows))
    return names | {"rank": place % 2, "context": place // 2}


OPTIONS = {"as it is": {}, "alpha": {"alpha": 0.8}, "simpo": {"base": partial(simpo, beta=1.5)}}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_steering_passes_every_oracle(options: dict) -> None:
    # Its weight is of the log-probs themselves, so it is not the same at every reference.
    ran = testing.check(partial(steering, **options), batch, skip=["at_reference"])
    assert {"pure", "padding", "row_order", "nan_outside", "all_masked", "micro_batches", "gradients"} <= set(ran)


def by_hand(logps: list[float], ref: list[float], beta: float = 0.1, alpha: float = 0.5) -> float:
    """One token a row, in the order plain, good, bad, the better reply first in each; under bad the worse one wins."""

    def sigmoid(z: float) -> float:
        return 1 / (1 + math.exp(-z))

    gap = [beta * ((logps[i] - ref[i]) - (logps[i + 1] - ref[i + 1])) for i in (0, 2, 4)]
    weight = sigmoid(-(alpha * logps[0] + (1 - alpha) * logps[1]))
    return weight * (-math.log(sigmoid(gap[1])) - math.log(sigmoid(-gap[2])))


def test_steering_equals_its_formula_and_the_bad_principle_has_the_other_sign() -> None:
    logps, ref = [-1.0, -3.0, -0.5, -4.0, -2.0, -1.5], [-1.5, -2.0, -1.0, -2.0, -2.5, -1.0]
    rank = torch.tensor([0, 1, 0, 1, 1, 0])
    context = torch.arange(3).repeat_interleave(2)
    column = [torch.tensor(x, dtype=torch.double)[:, None] for x in (logps, ref)]
    group, mask = torch.full((6,), 7), torch.ones(6, 1, dtype=torch.double)
    found = steering(column[0], mask, group, rank, context, column[1], alpha=0.3)
    assert found.value.item() == pytest.approx(by_hand(logps, ref, alpha=0.3))
    symmetric = steering(column[0], mask, group, torch.tensor([0, 1] * 3), context, column[1], alpha=0.3)
    assert symmetric.value.item() != pytest.approx(by_hand(logps, ref, alpha=0.3), rel=1e-2)


def test_the_weight_is_large_off_policy_and_draws_the_plain_rows_up() -> None:
    rank, context = torch.tensor([0, 1, 0, 1, 1, 0]), torch.arange(3).repeat_interleave(2)
    group, mask = torch.zeros(6, dtype=torch.long), torch.ones(6, 1)
    near, far = (torch.full((6, 1), x, requires_grad=True) for x in (-0.5, -5.0))
    seen = [steering(x, mask, group, rank, context, x.detach()) for x in (near, far)]
    assert seen[0].metrics["weight"].item() < 0.63 < 0.99 < seen[1].metrics["weight"].item()
    seen[0].value.sum().backward()
    assert (near.grad[:2] < 0).all()  # descending the loss raises both plain log-probs
