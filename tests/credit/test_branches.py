"""Standing among all of a prompt's rows, and which branches of a fork are trained: by hand."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest
import torch

from rewardkit.credit.base import apply, chain, with_state
from rewardkit.credit.branches import PromptHistory, branch_contrast
from rewardkit.loops.online import online
from rewardkit.loops.prompts import PromptSet
from rewardkit.objectives.policy import clipped
from rewardkit.policies.table import TablePolicy
from rewardkit.training import Checkpoints
from rewardkit.training.learner import Learner
from rewardkit.types import Rollout, Sample, Scores


def z(values: list[float], of: list[float]) -> list[float]:
    return [(v - statistics.fmean(of)) / statistics.stdev(of) for v in values]


def test_outcomes_are_standardised_over_their_prompts_last_turns() -> None:
    rule = PromptHistory(turns=2)
    family, ok, mask = torch.tensor([0, 0, 7, 7]), torch.tensor([True, True, True, False]), torch.ones(4, 3)
    turns = [[1.0, 2.0, 10.0, 9.0], [4.0, 8.0, 30.0, 9.0], [0.0, 1.0, 20.0, 9.0], [5.0, 6.0, 50.0, 9.0]]
    found = [rule(torch.tensor(t), ok, family, mask) for t in turns]
    assert found[0]["outcome"][:2].tolist() == pytest.approx(z([1, 2], [1, 2]))
    assert found[0]["outcome"][2] == 0, "a single row of a prompt stands nowhere"
    assert found[2]["outcome"][:2].tolist() == pytest.approx(z([0, 1], [1, 2, 4, 8, 0, 1]))
    assert found[3]["outcome"][:2].tolist() == pytest.approx(z([5, 6], [4, 8, 0, 1, 5, 6])), "the first is forgotten"
    assert found[3]["outcome"][2].item() == pytest.approx(z([50], [30, 20, 50])[0])
    assert not found[3]["weight"][3].any()


def test_prompts_never_share_a_mean() -> None:
    """The stated trap: two prompts of different difficulty."""
    rule = PromptHistory()
    made = rule(torch.tensor([0.0, 1.0, 100.0, 101.0]), torch.ones(4) > 0, torch.tensor([0, 0, 1, 1]), torch.ones(4, 1))
    assert made["outcome"][:2].tolist() == pytest.approx(made["outcome"][2:].tolist())


def test_what_is_remembered_goes_on() -> None:
    one, two = PromptHistory(turns=3), PromptHistory(turns=3)
    given = (torch.ones(2) > 0, torch.tensor([0, 0]), torch.ones(2, 1))
    for t in range(5):
        one(torch.tensor([float(t), t * t]), *given)
    two.load_state_dict(one.state_dict())
    last = torch.tensor([3.0, -3.0])
    assert torch.equal(one(last, *given)["outcome"], two(last, *given)["outcome"])
    with pytest.raises(ValueError, match="at least 0"):
        PromptHistory(turns=-1)


def test_the_best_is_kept_if_good_and_the_worst_if_bad() -> None:
    group = torch.tensor([3, 3, 3, 1, 1, 1, 8, 8, 8])
    outcome = torch.tensor([9.0, 0.6, 0.5, -0.5, -0.4, 0.5, -0.6, -2.0, 0.4])
    made = branch_contrast(outcome, outcome < 99, group, torch.ones(9, 2))
    assert made["weight"][:, 0].tolist() == [1, 0, 0, 0, 0, 1, 0, 1, 0]
    assert made["advantages"][:, 1].tolist() == [5, 0, 0, 0, 0, 0.5, 0, -2, 0]


def test_equal_branches_share_and_unscored_ones_are_out() -> None:
    outcome, ok = torch.tensor([1.0, 1.0, 7.0, -1.0]), torch.tensor([True, True, False, True])
    made = branch_contrast(outcome, ok, torch.zeros(4, dtype=torch.long), torch.ones(4, 1))
    assert made["weight"][:, 0].tolist() == [0.5, 0.5, 0, 1]


def test_dropped_rows_are_in_no_normaliser() -> None:
    rollout = Rollout([Sample("x", i) for i in range(4)], torch.ones(4, 2), torch.tensor([0, 0, 1, 1]))
    rollout.family = torch.zeros(4, dtype=torch.long)
    credited = apply(chain(PromptHistory(), branch_contrast), rollout, Scores(torch.tensor([0.0, 1.0, 2.0, 3.0])))
    assert credited.mask[:, 0].tolist() == [1, 0, 0, 1]
    assert credited["advantages"][3, 0].item() == pytest.approx(z([3], [0, 1, 2, 3])[0])


def test_a_killed_run_remembers(tmp_path: Path) -> None:
    def run(folder: Path, steps: int) -> list[dict[str, Any]]:
        turns = online(
            Learner(TablePolicy(["x"], ["a", "b"]), lr=0.1), PromptSet(["x"]),
            lambda completions, **_: [float(c == "a") + 0.1 * i for i, c in enumerate(completions)],
            chain(PromptHistory(turns=4), branch_contrast), clipped, reference=None, steps=steps, batch=1, n=4,
            checkpoint=Checkpoints(folder, every=1),
        )  # fmt: skip
        return [t.metrics for t in turns]

    whole = run(tmp_path / "whole", 6)
    assert len(run(tmp_path / "killed", 3)) == 3
    again = run(tmp_path / "killed", 6)
    assert [m["clipped/loss"] for m in again] == [m["clipped/loss"] for m in whole[3:]]
    assert list(with_state(chain(branch_contrast))) == []
