"""Nouns: what they refuse, and what selecting, splitting, joining and re-contexting rows keeps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from rewardkit.types import ERROR, MISSING, OK, Cost, Judgement, Measure, Rollout, Sample, Scores


def rollout(groups: list[int], length: int = 3, **fields: Any) -> Rollout:
    rows = len(groups)
    base: dict[str, Any] = {
        "samples": [Sample(f"p{g}", f"o{i}") for i, g in enumerate(groups)],
        "mask": torch.ones(rows, length),
        "group": torch.tensor(groups),
        "tensors": {
            "logps": torch.arange(rows * length).reshape(rows, length).float(),
            "rank": torch.arange(rows),
        },
        "segments": {"turn": torch.zeros(rows, length, dtype=torch.long)},
        "inputs": {"ids": [[i] for i in range(rows)]},
    }
    return Rollout(**{**base, **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mask": torch.ones(3, 3)}, r"Rollout\.mask must be \[B=2, T\]"),
        ({"mask": torch.tensor([[1.0, -1.0, 0.0]] * 2)}, r"Rollout\.mask holds weights"),
        ({"mask": torch.full((2, 3), math.nan)}, r"Rollout\.mask holds weights"),
        ({"group": torch.zeros(2)}, r"Rollout\.group must be integer"),
        ({"family": torch.zeros(3, dtype=torch.long)}, r"Rollout\.family must be integer"),
        ({"parent": torch.tensor([-1, 0])}, r"Rollout\.parent and Rollout\.start come together"),
        ({"segments": {"turn": torch.zeros(2, 4, dtype=torch.long)}}, r"Rollout\.segments\['turn'\]"),
        ({"tensors": {"logps": torch.zeros(3, 3)}}, r"Rollout\.tensors\['logps'\] must lead with B=2"),
        ({"tensors": {"beta": torch.tensor(1.0)}}, r"Rollout\.tensors\['beta'\] must lead with B=2"),
        ({"inputs": {"ids": [[1]]}}, r"Rollout\.inputs\['ids'\] has 1 rows"),
    ],
)
def test_a_rollout_names_the_field_that_does_not_fit(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rollout([0, 1], **fields)


def test_group_and_family_have_defaults_and_an_integer_mask_becomes_weights() -> None:
    made = Rollout([Sample("a"), Sample("b")], torch.ones(2, 1, dtype=torch.long))
    assert made.group.tolist() == made.family.tolist() == [0, 1]
    assert made.mask.is_floating_point()


def test_names_answer_and_unknown_ones_list_what_there_is() -> None:
    made = rollout([0, 1])
    assert "logps" in made
    assert "mask" in made
    assert "parent" not in made
    with pytest.raises(KeyError, match=r"no tensor 'values'; it has .*logps"):
        made["values"]


def test_select_takes_rows_of_everything_in_the_order_asked() -> None:
    found = rollout([7, 7, 9]).select([2, 0])
    assert found.group.tolist() == [9, 7]
    assert [s.output for s in found.samples] == ["o2", "o0"]
    assert found["rank"].tolist() == [2, 0]
    assert found["logps"][:, 0].tolist() == [6.0, 0.0]
    assert found.inputs["ids"] == [[2], [0]]
    assert found.segments["turn"].shape == (2, 3)


def test_select_keeps_forks_with_their_parents() -> None:
    made = rollout([0, 0, 0], parent=torch.tensor([-1, 0, -1]), start=torch.tensor([-1, 2, -1]))
    found = made.select([1, 0])
    assert found.parent is not None
    assert found.parent.tolist() == [1, -1]
    with pytest.raises(ValueError, match=r"drops the parents \[0\]"):
        made.select([1, 2])


@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
def test_split_never_divides_a_group_and_loses_no_row(size: int) -> None:
    group = [3, 1, 3, 2, 1, 3, 5]
    parts = list(rollout(group).split(size))
    seen: list[int] = []
    for part in parts:
        groups = set(part.group.tolist())
        assert len(part) <= size or len(groups) == 1
        assert not groups & set(seen)
        seen += part.group.tolist()
    assert sorted(seen) == sorted(group)
    assert sorted(r for p in parts for r in p["rank"].tolist()) == list(range(7))


@pytest.mark.parametrize("group", [[3, 1, 3, 2, 1, 3, 5], [0, 1, 2, 3, 4, 5, 6]])
def test_parts_in_an_order_are_the_same_rows_selected(group: list[int]) -> None:
    given = torch.tensor([6, 2, 0, 5, 1, 4, 3])
    whole = rollout(group, inputs={"ids": [[i] for i in range(7)], "x": torch.arange(7)}, cost=Cost(tokens=3))
    for part in whole.split(3, given):
        rows = part.inputs["x"].tolist()
        same = whole.select(rows)
        assert part.samples == same.samples
        assert part.inputs["ids"] == same.inputs["ids"]
        assert part.cost == same.cost
        for name in ("mask", "group", "family", "logps", "rank"):
            assert torch.equal(part[name], same[name]), name
        assert torch.equal(part.segments["turn"], same.segments["turn"])
    assert next(whole.split(1, given)).inputs["x"].tolist() == [6]


def test_split_refuses_a_size_below_one() -> None:
    with pytest.raises(ValueError, match="size of at least 1"):
        next(rollout([0]).split(0))


def test_cat_pads_on_the_right_and_can_number_groups_afresh() -> None:
    short, long = rollout([0, 4], length=2), rollout([4, 4], length=3)
    joined = Rollout.cat([short, long])
    assert joined.group.tolist() == [0, 4, 4, 4]
    assert joined.mask.tolist()[0] == [1.0, 1.0, 0.0]
    assert joined.segments["turn"][0].tolist() == [0, 0, -1]
    assert joined["logps"].shape == (4, 3)
    assert joined["rank"].tolist() == [0, 1, 0, 1]
    apart = Rollout.cat([short, long], regroup=True)
    assert apart.group.tolist() == [0, 1, 2, 2]
    assert len(set(apart.family.tolist())) == 3


def test_cat_moves_parents_with_their_rows() -> None:
    fork = rollout([0, 0], parent=torch.tensor([-1, 0]), start=torch.tensor([-1, 1]))
    joined = Rollout.cat([rollout([0]), fork], regroup=True)
    assert joined.parent is not None
    assert joined.parent.tolist() == [-1, -1, 1]


def test_cat_refuses_rollouts_that_carry_different_names() -> None:
    with pytest.raises(ValueError, match=r"tensors \['values'\] are not in every rollout"):
        Rollout.cat([rollout([0]), rollout([0]).with_tensors(values=torch.zeros(1, 3))])
    with pytest.raises(ValueError, match="at least one"):
        Rollout.cat([])


def test_cat_of_split_is_the_same_batch() -> None:
    whole = rollout([0, 0, 1, 2, 2])
    again = Rollout.cat(list(whole.split(2)))
    assert torch.equal(again["logps"], whole["logps"])
    assert again.group.tolist() == whole.group.tolist()
    assert again.samples == whole.samples


def test_under_keeps_outputs_and_the_users_words_and_drops_what_depended_on_the_prompt() -> None:
    made = rollout([0, 1], versions={"live": "1"})
    found = made.under(["q0", "q1"])
    assert [s.prompt for s in found.samples] == ["q0", "q1"]
    assert [s.asked for s in found.samples] == ["p0", "p1"]
    assert [s.output for s in found.samples] == ["o0", "o1"]
    assert found.tensors == {}
    assert found.inputs == {}
    assert found.versions == {}
    assert found.under(["r0", "r1"]).samples[0].asked == "p0"
    with pytest.raises(ValueError, match="needs 2 prompts, not 1"):
        made.under(["q0"])


def test_with_tensors_checks_and_leaves_the_original_alone() -> None:
    made = rollout([0, 1])
    assert "values" in made.with_tensors(values=torch.zeros(2, 3))
    assert "values" not in made
    with pytest.raises(ValueError, match=r"tensors\['values'\]"):
        made.with_tensors(values=torch.zeros(3, 3))


def test_a_sample_says_what_was_asked() -> None:
    assert Sample("rewritten", source="original").asked == "original"
    assert Sample("prompt").asked == "prompt"
    with pytest.raises(ValueError, match=r"Sample\.ended"):
        Sample("p", ended="stopped")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"Sample\.hidden"):
        Sample("p", hidden=[1])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Scores(), "needs an outcome"),
        (lambda: Scores(torch.zeros(2, 1)), r"Scores\.outcome must be \[B\]"),
        (lambda: Scores(torch.zeros(2), dense={"step": torch.zeros(3, 1)}), "disagree on the number of rows"),
        (lambda: Scores(torch.zeros(2), dense={"word": torch.zeros(2, 1)}), r"not \['word'\]"),
        (lambda: Scores(torch.tensor([0.0, math.nan])), "not finite in row 1"),
        (lambda: Scores(dense={"token": torch.tensor([[math.inf]])}), "dense.*not finite in row 0"),
        (lambda: Scores(torch.zeros(1), parts={"a": Scores(torch.zeros(1))}), "must name the same"),
        (lambda: Scores(torch.tensor(1.0)), r"Scores\.outcome must be \[B\]"),
        (lambda: Scores(dense={"token": torch.zeros(2)}), r"dense\['token'\] must be \[B, "),
        (lambda: Scores(torch.zeros(2), std=torch.zeros(3)), r"Scores\.std must be \[B=2\]"),
        (lambda: Scores(torch.zeros(2), std=torch.tensor([0.0, math.nan])), "std is not finite in row 1"),
        (lambda: Scores(torch.zeros(2), why=["x"]), r"Scores\.why has 1 entries for 2 rows"),
        (lambda: Scores(torch.zeros(2), status=torch.tensor([7, 0])), r"Scores\.status holds OK"),
        (lambda: Scores(torch.zeros(2), status=torch.tensor([True, True])), r"Scores\.status holds OK"),
    ],
)
def test_scores_name_the_field_that_does_not_fit(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_row_that_failed_may_hold_anything() -> None:
    scores = Scores(torch.tensor([1.0, math.nan]), status=torch.tensor([OK, ERROR]))
    assert scores.ok.tolist() == [True, False]


def test_a_sum_keeps_its_parts_and_is_unscored_where_any_part_is() -> None:
    good = Scores(torch.tensor([1.0, 2.0, 3.0]), cost=Cost(calls=1))
    shaky = Scores(torch.tensor([1.0, 0.0, 0.0]), status=torch.tensor([OK, ERROR, MISSING]), cost=Cost(calls=2))
    total = Scores.combine({"a": good, "b": shaky}, {"a": 1.0, "b": 0.5})
    assert total.outcome is not None
    assert total.outcome.tolist() == [1.5, 0.0, 0.0]
    assert total.ok.tolist() == [True, False, False]
    assert total.parts["a"] is good
    assert total.weights == {"a": 1.0, "b": 0.5}
    assert total.cost.calls == 3


def test_a_failure_is_not_hidden_behind_a_missing_label() -> None:
    failed, unlabelled = (Scores(torch.zeros(1), status=torch.tensor([s])) for s in (ERROR, MISSING))
    assert Scores.combine({"a": failed, "b": unlabelled}, {"a": 1.0, "b": 1.0}).status.tolist() == [ERROR]


def test_a_part_of_weight_0_is_shown_and_decides_nothing() -> None:
    shown = Scores(torch.tensor([1.0, math.nan]), status=torch.tensor([OK, MISSING]))
    total = Scores.combine({"a": Scores(torch.tensor([1.0, 2.0])), "shown": shown}, {"a": 1.0, "shown": 0.0})
    assert total.outcome is not None
    assert total.outcome.tolist() == [1.0, 2.0]
    assert total.ok.all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"items": ()}, r"Judgement\.items is empty"),
        ({"rank": (0,)}, r"Judgement\.rank has 1 entries for 2 items"),
        ({"rank": (1, 2)}, r"Judgement\.rank starts at 0"),
        ({"p": (0.5, 0.6)}, r"Judgement\.p must be a distribution"),
        ({"p": (math.nan, math.nan)}, r"Judgement\.p must be a distribution"),
        ({"rating": (math.nan, 1.0)}, r"Judgement\.rating must be finite"),
        ({"rank": (0, 1), "rating": (1.0, 0.0)}, "has one of rank, p and rating"),
        ({}, "says something"),
        ({"note": "good", "weight": -1.0}, r"Judgement\.weight"),
        ({"spans": ((2, 0, 1, "bad"),)}, r"Judgement\.spans"),
        ({"spans": ((0, 3, 1, "bad"),)}, r"Judgement\.spans"),
    ],
)
def test_a_judgement_names_the_field_that_does_not_fit(fields: dict[str, Any], message: str) -> None:
    items = (Sample("p", "a"), Sample("p", "b"))
    with pytest.raises(ValueError, match=message):
        Judgement(**{"items": items, **fields})


def test_ties_are_seen_in_every_kind_of_judgement() -> None:
    items = (Sample("p", "a"), Sample("p", "b"))
    assert Judgement(items, rank=(0, 0)).tied
    assert Judgement(items, p=(0.5, 0.5)).tied
    assert Judgement(items, rating=(0.0, 0.0)).tied
    assert not Judgement(items, rank=(0, 1)).tied
    assert not Judgement(items[:1], rating=(1.0,)).tied
    assert not Judgement(items, note="equal?").tied


def test_costs_add_and_measures_check() -> None:
    assert Cost(1, 2, 3, 0.5) + Cost(1, 1, 1, 1.0) == Cost(2, 3, 4, 1.5)
    with pytest.raises(ValueError, match=r"Measure\.ci is \(low, high\)"):
        Measure(0.5, 10, (0.6, 0.4))
    with pytest.raises(ValueError, match="count cases"):
        Measure(0.5, -1)


def test_select_by_bools_takes_the_rows_that_are_true() -> None:
    assert [s.output for s in rollout([0, 0, 1]).select(torch.tensor([False, True, True])).samples] == ["o1", "o2"]
    with pytest.raises(ValueError, match=r"bools needs \[B=3\]"):
        rollout([0, 0, 1]).select(torch.tensor([True]))


def test_costs_are_not_multiplied_by_dividing_a_batch() -> None:
    batch = rollout([0, 1, 2], cost=Cost(tokens=10))
    assert Rollout.cat([batch, batch]).cost.tokens == 20
    assert Rollout.cat(list(batch.split(1))).cost.tokens == 0


def test_cat_keeps_a_version_only_where_all_agree_and_refuses_mixed_sampling() -> None:
    one, two = rollout([0], versions={"logps": "1", "rank": "1"}), rollout([1], versions={"logps": "2", "rank": "1"})
    assert Rollout.cat([one, two]).versions == {"rank": "1"}
    warm, cold = rollout([0], how={"temperature": 1.0, "drawn": 1}), rollout([1], how={"temperature": 0.5, "drawn": 2})
    with pytest.raises(ValueError, match=r"differs in \['temperature'\]"):
        Rollout.cat([warm, cold])


def test_replaced_tensors_have_no_version_any_more() -> None:
    batch = rollout([0], versions={"logps": "1", "rank": "1"})
    assert batch.with_tensors(logps=torch.zeros(1, 3)).versions == {"rank": "1"}


def test_steps_are_rows_of_their_own() -> None:
    batch = Rollout(
        [Sample("p", "o"), Sample("q", "r")],
        torch.tensor([[1.0, 0.5], [1.0, 0.0]]),
        torch.tensor([4, 4]),
        segments={"turn": torch.tensor([[0, 1], [0, -1]])},
        tensors={"logps": torch.tensor([[1.0, 2.0], [3.0, 9.0]]), "rank": torch.tensor([0, 1])},
        inputs={"x": torch.arange(12).reshape(2, 2, 3)},
    )
    steps = batch.steps()
    assert [s.prompt for s in steps.samples] == ["p", "p", "q"]
    assert steps.mask.tolist() == [[1.0], [0.5], [1.0]]
    assert steps["logps"].tolist() == [[1.0], [2.0], [3.0]]
    assert steps["rank"].tolist() == [0, 0, 1]
    assert steps.inputs["x"].tolist() == [[[0, 1, 2]], [[3, 4, 5]], [[6, 7, 8]]]
    assert steps.group.tolist() == [0, 1, 2]
    assert steps.family.tolist() == [4, 4, 4]
    with pytest.raises(ValueError, match=r"\['ids'\] cannot be taken apart"):
        rollout([0, 1]).steps()
