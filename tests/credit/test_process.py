"""PRIME's advantage: process and outcome apart, each against the others of its group."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from rewardkit.credit.base import apply, chain, per_part
from rewardkit.credit.group import rloo
from rewardkit.credit.process import dense_rloo, pass_rate_filter
from rewardkit.types import Rollout, Sample, Scores

PRIME = per_part(rloo, by={"prm": dense_rloo})


def scored(process: list[list[float]], outcome: list[float]) -> tuple[Rollout, Scores]:
    mask = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])[: len(outcome)]
    rollout = Rollout([Sample("x", "y")] * len(outcome), mask, torch.zeros(len(outcome), dtype=torch.long))
    parts = {"gold": Scores(torch.tensor(outcome)), "prm": Scores(dense={"token": torch.tensor(process)})}
    return rollout, Scores.combine(parts, {"gold": 1.0, "prm": 1.0})


def test_the_advantage_is_equation_6() -> None:
    process, outcome = [[0.5, -0.2, 0.1], [1.0, 0.0, 9.0], [0.0, 0.3, 0.3]], [1.0, 0.0, 1.0]
    rollout, scores = scored(process, outcome)
    found = apply(PRIME, rollout, scores)["advantages"]
    lengths = [3, 2, 3]
    means = [sum(r[:n]) / n for r, n in zip(process, lengths, strict=True)]
    for i in range(3):
        others = [j for j in range(3) if j != i]
        base = sum(means[j] for j in others) / 2
        won = outcome[i] - sum(outcome[j] for j in others) / 2
        for t in range(lengths[i]):
            want = sum(process[i][s] - base for s in range(t, lengths[i])) + won
            assert float(found[i, t]) == pytest.approx(want, abs=1e-6)
    assert float(found[1, 2]) == 0


def test_a_process_reward_that_says_nothing_leaves_plain_rloo() -> None:
    rollout, scores = scored([[0.0] * 3] * 3, [1.0, 0.0, 1.0])
    plain = apply(rloo, rollout, scores.parts["gold"])["advantages"]
    torch.testing.assert_close(apply(PRIME, rollout, scores)["advantages"], plain)


@pytest.mark.parametrize(("outcome", "kept"), [([1.0, 0.0, 1.0], 1.0), ([1.0, 1.0, 1.0], 0.0), ([0.0, 0.0, 0.0], 0.0)])
def test_groups_that_are_all_right_or_all_wrong_are_not_trained(outcome: list[float], kept: float) -> None:
    rollout, scores = scored([[0.1, 0.2, 0.3]] * 3, outcome)
    found = apply(chain(partial(pass_rate_filter, part="gold"), PRIME), rollout, scores)
    assert torch.equal(found.mask, rollout.mask * kept)


def test_the_part_that_decides_is_named() -> None:
    rollout, scores = scored([[0.1, 0.2, 0.3]] * 3, [1.0, 0.0, 1.0])
    with pytest.raises(ValueError, match=r"'prm'.*\['gold'\]"):
        apply(chain(partial(pass_rate_filter, part="prm"), PRIME), rollout, scores)
