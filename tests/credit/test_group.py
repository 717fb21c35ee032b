"""Group baselines, leave-one-out, whitening."""

import math
import statistics
import warnings

import pytest
import torch

from rewardkit.credit.group import group_relative, rloo, whiten


def _batch():
    g = torch.Generator().manual_seed(3)
    group = torch.tensor([4, 7, 4, 7, 7, 4, 2, 2, 7])
    outcome = torch.randn(9, generator=g, dtype=torch.float64)
    ok = torch.tensor([1, 1, 1, 0, 1, 1, 1, 1, 1]).bool()
    mask = torch.ones(9, 3, dtype=torch.float64)
    mask[5, 1:] = 0
    return outcome, ok, group, mask


def _members(outcome, ok, group, row):
    return [float(outcome[i]) for i in range(len(outcome)) if group[i] == group[row] and ok[i]]


@pytest.mark.parametrize("scale", ["std", "batch", "none"])
def test_group_relative_equals_the_definition(scale) -> None:
    """R11: the three scales differ on this batch, each equals its own definition."""
    outcome, ok, group, mask = _batch()
    found = group_relative(outcome, ok, group, mask, scale=scale)
    batch = statistics.stdev(float(x) for x in outcome[ok])
    for row in range(9):
        members = _members(outcome, ok, group, row)
        divisor = {"std": statistics.stdev(members) + 1e-4, "batch": batch + 1e-4, "none": 1.0}[scale]
        expected = (float(outcome[row]) - statistics.fmean(members)) / divisor if ok[row] else 0.0
        live = mask[row] > 0
        assert torch.allclose(found["advantages"][row, live], torch.tensor(expected, dtype=torch.float64), atol=1e-12)
        assert (found["advantages"][row, ~live] == 0).all()
        assert (found["weight"][row] == float(ok[row])).all()


def test_rloo_equals_the_definition() -> None:
    """R12: golden by hand, n is applied once."""
    outcome, ok, group, mask = _batch()
    found = rloo(outcome, ok, group, mask)["advantages"][:, 0]
    for row in range(9):
        members = _members(outcome, ok, group, row)
        others = (sum(members) - float(outcome[row])) / (len(members) - 1)
        assert found[row].item() == pytest.approx(float(outcome[row]) - others if ok[row] else 0.0, abs=1e-12)
    one = torch.tensor([0, 0, 0, 0])
    golden = rloo(torch.tensor([1.0, 0.0, 0.0, 0.0]), one == 0, one, torch.ones(4, 1))["advantages"][:, 0]
    assert golden.tolist() == pytest.approx([1.0, -1 / 3, -1 / 3, -1 / 3])


def test_grpo_golden_values() -> None:
    """R12: [1, 0, 0, 0] has mean 1/4 and sample deviation 1/2."""
    one = torch.tensor([0, 0, 0, 0])
    found = group_relative(torch.tensor([1.0, 0.0, 0.0, 0.0]), one == 0, one, torch.ones(4, 1))["advantages"][:, 0]
    assert found.tolist() == pytest.approx([0.75 / 0.5001, *[-0.25 / 0.5001] * 3], abs=1e-6)


@pytest.mark.parametrize("rule", [group_relative, rloo])
def test_permuting_rows_permutes_advantages(rule) -> None:
    """R8: groups are numbers, never strides."""
    outcome, ok, group, mask = _batch()
    order = torch.randperm(9)
    found = rule(outcome, ok, group, mask)["advantages"]
    moved = rule(outcome[order], ok[order], group[order], mask[order])["advantages"]
    assert torch.allclose(moved, found[order], atol=1e-12)


@pytest.mark.parametrize("rule", [group_relative, rloo])
def test_a_group_of_one_gets_exactly_zero_and_a_warning(rule) -> None:
    """R7: neither NaN nor the raw reward; a group with one scored row of several is one too."""
    group, ok = torch.tensor([0, 1, 1]), torch.tensor([True, True, False])
    with pytest.warns(UserWarning, match="single scored row"):
        found = rule(torch.tensor([5.1, 0.1, 0.0]), ok, group, torch.ones(3, 2))
    assert torch.equal(found["advantages"], torch.zeros(3, 2))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            rule(torch.tensor([5.1, 0.1, 0.0]), ok, group, torch.ones(3, 2))
    assert len(caught) == 1


@pytest.mark.parametrize("value", [1e6, -3.3e7, 0.1, 1 / 3])
def test_constant_rewards_give_zero(value) -> None:
    """R9: two passes in float64; no spike from E[x^2] - E[x]^2."""
    group = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    outcome, ok, mask = torch.full((7,), value), torch.ones(7).bool(), torch.ones(7, 2)
    for scale in ("std", "batch", "none"):
        assert group_relative(outcome, ok, group, mask, scale=scale)["advantages"].abs().max() == 0
    assert rloo(outcome, ok, group, mask)["advantages"].abs().max() == 0


def test_large_offsets_do_not_change_advantages() -> None:
    """R9."""
    group, ok, mask = torch.tensor([0, 0, 0]), torch.ones(3).bool(), torch.ones(3, 1)
    small = group_relative(torch.tensor([1.0, 2.0, 4.0]), ok, group, mask)["advantages"]
    large = group_relative(torch.tensor([1.0, 2.0, 4.0]) + 2**20, ok, group, mask)["advantages"]
    assert torch.allclose(small, large, atol=1e-6)


def test_unscored_rows_hold_garbage_and_it_does_not_matter() -> None:
    outcome, ok, group, mask = _batch()
    dirty = torch.where(ok, outcome, torch.tensor(float("nan"), dtype=outcome.dtype))
    for rule in (group_relative, rloo):
        assert torch.equal(rule(dirty, ok, group, mask)["advantages"], rule(outcome, ok, group, mask)["advantages"])


def test_a_masked_row_stays_in_the_baseline() -> None:
    """R67, the default: a cut-off row that is not trained still says how good its group was."""
    group, ok = torch.zeros(3).long(), torch.ones(3).bool()
    mask = torch.tensor([[1.0], [1.0], [0.0]])
    found = group_relative(torch.tensor([1.0, 0.0, -4.0]), ok, group, mask, scale="none")["advantages"]
    assert found[:, 0].tolist() == [2.0, 1.0, 0.0]


def test_nobody_scored_gives_zeros() -> None:
    """R26."""
    group, ok = torch.zeros(3).long(), torch.zeros(3).bool()
    for scale in ("std", "batch", "none"):
        found = group_relative(torch.zeros(3), ok, group, torch.ones(3, 2), scale=scale)
        assert torch.equal(found["advantages"], torch.zeros(3, 2))
        assert torch.equal(found["weight"], torch.zeros(3, 2))


def test_unknown_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="group"):
        group_relative(torch.zeros(2), torch.ones(2).bool(), torch.zeros(2).long(), torch.ones(2, 1), scale="group")


def test_whiten_gives_mean_zero_and_deviation_one_over_the_mask() -> None:
    x, mask = torch.randn(4, 6) * 3 + 7, (torch.rand(4, 6) > 0.4).float()
    found = whiten(torch.where(mask > 0, x, torch.tensor(float("nan"))), mask)["advantages"]
    live = found[mask > 0]
    assert live.mean().abs() < 1e-6
    assert live.std().item() == pytest.approx(1.0, abs=1e-5)
    assert (found[mask == 0] == 0).all()


def test_whiten_over_rows_counts_a_row_once() -> None:
    advantages = torch.tensor([[1.0, 1.0, 1.0], [4.0, 0.0, 0.0]])
    mask = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    found = whiten(advantages, mask, over="rows", eps=0.0)["advantages"]
    assert found[:, 0].tolist() == pytest.approx([-1.5 / math.sqrt(4.5), 1.5 / math.sqrt(4.5)])
    assert whiten(advantages, mask)["advantages"][0, 0] != found[0, 0]


@pytest.mark.parametrize("over", ["tokens", "rows"])
def test_whitening_a_batch_of_one_or_none_gives_zero(over) -> None:
    """R10."""
    assert whiten(torch.tensor([[3.0]]), torch.ones(1, 1), over=over)["advantages"].tolist() == [[0.0]]
    assert whiten(torch.ones(2, 2), torch.zeros(2, 2), over=over)["advantages"].abs().max() == 0
    assert whiten(torch.full((2, 2), 1e7), torch.ones(2, 2), over=over)["advantages"].abs().max() == 0
