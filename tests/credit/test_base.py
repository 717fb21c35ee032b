"""Names in, names out: namespace, chain, apply, per_part."""

from functools import partial

import pytest
import torch

from rewardkit.credit.base import apply, chain, drop_cut, namespace, per_part, tensors_needed
from rewardkit.credit.group import group_relative, rloo, whiten
from rewardkit.credit.kl import kl_penalty
from rewardkit.credit.returns import gae, reward_to_go, total
from rewardkit.needs import Column, call, needs
from rewardkit.types import ERROR, MISSING, OK, Rollout, Sample, Scores


def _rollout(rows: int = 4, length: int = 3, **tensors) -> Rollout:
    samples = [Sample("x", str(i)) for i in range(rows)]
    return Rollout(samples, torch.ones(rows, length), torch.zeros(rows).long(), tensors=tensors)


def test_the_namespace_has_every_name() -> None:
    rollout = _rollout(2, 3, values=torch.zeros(2, 3))
    rollout.segments["turn"] = torch.zeros(2, 3).long()
    scores = Scores(torch.tensor([1.0, float("nan")]), status=torch.tensor([OK, ERROR]))
    names = namespace(rollout, scores)
    assert names["outcome"].tolist() == [1.0, 0.0]
    assert names["ok"].tolist() == [True, False]
    assert names["mask"].tolist() == [[1, 1, 1], [0, 0, 0]]
    assert names["rewards"].tolist() == [[0, 0, 1], [0, 0, 0]]
    assert {"group", "family", "turn", "values", "cut", "unplaced", "parts", "dense"} <= set(names)


def test_rows_and_scores_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="2 scores for 4 rows"):
        namespace(_rollout(), Scores(torch.zeros(2)))


@pytest.mark.parametrize("rule", [group_relative, rloo, chain(partial(kl_penalty, coef=0.1), rloo), per_part(rloo)])
def test_dense_scores_are_never_dropped_in_silence(rule) -> None:
    rollout = _rollout(4, 3, old_logps=torch.zeros(4, 3), ref_logps=torch.zeros(4, 3))
    both = Scores.combine(
        {"a": Scores(torch.randn(4)), "d": Scores(torch.randn(4), {"token": torch.randn(4, 3)})}, {"a": 1.0, "d": 1.0}
    )
    with pytest.raises(ValueError, match=r"would drop the scores on token.*chain\(total"):
        apply(rule, rollout, both)


def test_total_makes_dense_scores_an_outcome_explicitly() -> None:
    tokens = torch.arange(12.0).reshape(4, 3)
    found = apply(chain(total, rloo), _rollout(), Scores(dense={"token": tokens}))
    sums = tokens.sum(1)
    expected = torch.tensor([s - (sums.sum() - s) / 3 for s in sums])
    assert torch.allclose(found["advantages"][:, 0], expected)


def test_rules_that_read_rewards_take_dense_scores() -> None:
    scores = Scores(torch.tensor([1.0, 0.0, 0.0, 0.0]), {"token": torch.ones(4, 3)})
    found = apply(reward_to_go, _rollout(), scores)
    assert found["returns"][0].tolist() == [4.0, 3.0, 2.0]
    assert found["returns"][1].tolist() == [3.0, 2.0, 1.0]


def test_unscored_rows_leave_baseline_normaliser_and_loss() -> None:
    status = torch.tensor([OK, OK, ERROR, MISSING])
    scores = Scores(torch.tensor([1.0, 3.0, 0.0, 0.0]), status=status)
    for rule in (group_relative, rloo, chain(reward_to_go, whiten)):
        found = apply(rule, _rollout(), scores)
        assert found.mask.sum(1).tolist() == [3, 3, 0, 0]
        assert found["advantages"][2:].abs().max() == 0
        pair = apply(rule, _rollout(2), Scores(torch.tensor([1.0, 3.0])))
        assert torch.allclose(found["advantages"][:2], pair["advantages"])


def test_cut_rows_stay_in_the_baseline_unless_dropped() -> None:
    """R67."""
    rollout = _rollout(3)
    rollout.samples[2] = Sample("x", "2", ended="cut")
    scores = Scores(torch.tensor([1.0, 0.0, -4.0]))
    kept = apply(partial(group_relative, scale="none"), rollout, scores)
    assert kept["advantages"][:, 0].tolist() == [2.0, 1.0, -3.0]
    for rule in (partial(group_relative, scale="none"), per_part(partial(group_relative, scale="none"))):
        dropped = apply(chain(drop_cut, rule), rollout, scores)
        assert dropped["advantages"][:, 0].tolist() == [0.5, -0.5, 0.0]
        assert dropped.mask.sum(1).tolist() == [3, 3, 0]


def test_a_chain_is_a_rule_by_name() -> None:
    rule = chain(partial(kl_penalty, coef=0.1), gae, whiten)
    assert set(needs(rule)) >= {"rewards", "old_logps", "ref_logps", "mask", "values"}
    assert tensors_needed(rule) == {"values", "old_logps", "ref_logps"}
    assert tensors_needed(per_part(rule, by={"a": group_relative})) == {"values", "old_logps", "ref_logps"}
    rollout = _rollout(4, 3, **{k: torch.randn(4, 3) for k in ("values", "old_logps", "ref_logps")})
    scores = Scores(torch.randn(4))
    by_call = call(rule, namespace(rollout, scores))
    found = apply(rule, rollout, scores)
    assert torch.equal(by_call["advantages"], found["advantages"])
    assert {"advantages", "returns", "rewards"} <= found.names()
    assert rule.__name__ == "chain(kl_penalty, gae, whiten)"


def test_a_missing_tensor_is_named() -> None:
    with pytest.raises(KeyError, match="gae needs 'values'"):
        apply(gae, _rollout(), Scores(torch.zeros(4)))
    with pytest.raises(ValueError, match="at least one"):
        chain()


def test_hyper_parameters_can_be_columns_of_the_rollout() -> None:
    rollout = _rollout(2, 1, old_logps=torch.zeros(2, 1), ref_logps=-torch.ones(2, 1), doubt=torch.tensor([0.0, 2.0]))
    rule = chain(partial(kl_penalty, coef=Column("doubt")), reward_to_go)
    assert apply(rule, rollout, Scores(torch.ones(2)))["returns"][:, 0].tolist() == [1.0, -1.0]


def test_advantages_carry_no_graph() -> None:
    values = torch.randn(4, 3, requires_grad=True)
    assert not apply(gae, _rollout(4, 3, values=values), Scores(torch.randn(4)))["advantages"].requires_grad


def test_an_advantage_that_is_not_finite_is_refused() -> None:
    rollout = _rollout(2, 3, values=torch.tensor([[0.0, 0.0, 0.0], [0.0, float("nan"), 0.0]]))
    with pytest.raises(ValueError, match="not finite in row 1"):
        apply(gae, rollout, Scores(torch.zeros(2)))


def _two(weights=(1.0, 0.1)) -> Scores:
    parts = {"a": Scores(torch.tensor([1.0, 0.0, 0.0, 1.0])), "b": Scores(torch.tensor([0.0, 100.0, 300.0, 50.0]))}
    return Scores.combine(parts, dict(zip("ab", weights, strict=True)))


def test_per_part_normalises_each_part_by_itself() -> None:
    names = namespace(_rollout(), _two())
    each = [group_relative(p.names["outcome"], p.names["ok"], names["group"], names["mask"]) for p in names["parts"]]
    found = apply(per_part(group_relative), _rollout(), _two())
    expected = each[0]["advantages"] + 0.1 * each[1]["advantages"]
    assert torch.allclose(found["advantages"], expected)
    together = apply(group_relative, _rollout(), _two())["advantages"]
    assert not torch.allclose(found["advantages"], together, atol=0.1)


def test_per_part_of_a_linear_rule_is_the_rule() -> None:
    linear = apply(rloo, _rollout(), _two())["advantages"]
    assert torch.allclose(apply(per_part(rloo), _rollout(), _two())["advantages"], linear, atol=1e-4)


def test_per_part_can_treat_a_dense_part_otherwise() -> None:
    dense = Scores(dense={"token": torch.randn(4, 3)})
    scores = Scores.combine({"a": Scores(torch.randn(4)), "d": dense}, {"a": 1.0, "d": 0.5})
    found = apply(per_part(rloo, by={"d": reward_to_go}), _rollout(), scores)["advantages"]
    a = apply(rloo, _rollout(), scores.parts["a"])["advantages"]
    d = apply(reward_to_go, _rollout(), dense)["advantages"]
    assert torch.allclose(found, a + 0.5 * d)
    with pytest.raises(ValueError, match="rules for \\['e'\\]"):
        apply(per_part(rloo, by={"e": rloo}), _rollout(), scores)


def test_per_part_leaves_a_row_out_of_the_parts_that_it_lacks() -> None:
    a = Scores(torch.tensor([1.0, 3.0, 0.0, 0.0]), status=torch.tensor([OK, OK, MISSING, MISSING]))
    b = Scores(torch.tensor([0.0, 0.0, 5.0, 7.0]), status=torch.tensor([MISSING, MISSING, OK, OK]))
    whole = Scores(torch.tensor([1.0, 3.0, 5.0, 7.0]), parts={"a": a, "b": b}, weights={"a": 1.0, "b": 1.0})
    found = apply(per_part(rloo), _rollout(), whole)
    assert found["advantages"][:, 0].tolist() == [-2.0, 2.0, -2.0, 2.0]
    assert found.mask.sum() == 12


def test_permuting_rows_permutes_everything() -> None:
    """R8."""
    rollout = _rollout(6)
    rollout.group = torch.tensor([0, 0, 2, 0, 2, 2])

    scores = Scores(torch.randn(6), status=torch.tensor([OK, OK, OK, ERROR, OK, OK]))

    order = torch.randperm(6)
    moved = Scores(scores.outcome[order], status=scores.status[order])
    rule = chain(group_relative, whiten)
    found, permuted = apply(rule, rollout, scores), apply(rule, rollout.select(order), moved)
    assert torch.allclose(permuted["advantages"], found["advantages"][order], atol=1e-6)
    assert torch.equal(permuted.mask, found.mask[order])


def test_padding_does_not_matter() -> None:
    scores = Scores(torch.randn(4))
    rollout = _rollout()
    padded = Rollout(rollout.samples, torch.cat([rollout.mask, torch.zeros(4, 2)], 1), rollout.group)
    for rule in (group_relative, rloo, chain(reward_to_go, whiten)):
        found = apply(rule, padded, scores)
        assert torch.allclose(found["advantages"][:, :3], apply(rule, rollout, scores)["advantages"])
        assert found["advantages"][:, 3:].abs().max() == 0


@pytest.mark.parametrize("nested", [False, True])
def test_rewards_that_a_chain_made_are_not_dropped_by_per_part(nested: bool) -> None:
    """per_part reads the parts' own scores: a penalty before it would vanish in silence."""
    rollout = _rollout(old_logps=-torch.ones(4, 3), ref_logps=-2 * torch.ones(4, 3))
    penalty, rule = partial(kl_penalty, coef=0.5), per_part(rloo)
    with pytest.raises(ValueError, match=r"drop the outcome and rewards.*per_part\(chain"):
        apply(chain(penalty, chain(rule) if nested else rule), rollout, _two())
    inside = apply(per_part(chain(penalty, rloo)), rollout, _two())
    assert torch.isfinite(inside["advantages"]).all()
