"""Evaluation on comparisons."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from rewardkit.evals.pairwise import pairwise
from rewardkit.rewards.base import RewardBase
from rewardkit.types import ERROR, OK, Judgement, Rollout, Sample, Scores


class Known(RewardBase):
    """Reads the score out of the text: ``score=1.5``; ``broken`` is the grader's failure."""

    name = "known"

    def __init__(self, scope: str = "sample") -> None:
        self.scope, self.sizes = scope, []  # type: ignore[var-annotated]

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        self.sizes.append(len(rollout))
        outputs = [s.output for s in rollout.samples]
        broken = torch.tensor(["broken" in o for o in outputs])
        values = [0.0 if "broken" in o else float(o.split("=")[1]) for o in outputs]
        return Scores(torch.tensor(values), status=torch.where(broken, ERROR, OK))


def pair(better: float | str, worse: float | str, prompt: str = "q", *, swap: bool = False) -> Judgement:
    items = tuple(Sample(prompt, f"score={x}" if not isinstance(x, str) else x) for x in (better, worse))
    return Judgement(items[::-1], rank=(1, 0)) if swap else Judgement(items, rank=(0, 1))


def test_equal_scores_count_half_and_are_reported() -> None:
    report = pairwise(Known(), [pair(2, 1), pair(1, 2), pair(1, 1), pair(3, 0)])
    assert report.accuracy.value == pytest.approx(2.5 / 4)
    assert (report.ties, report.accuracy.n) == (1, 4)


def test_rows_that_could_not_be_scored_are_left_out_and_counted() -> None:
    report = pairwise(Known(), [pair(2, 1), pair("broken", 2), pair(1, "broken")])
    assert report.accuracy.value == 1.0
    assert (report.accuracy.n, report.accuracy.invalid) == (1, 2)
    assert report.flat()["unscored"] == 2


def test_the_order_of_the_sides_in_the_file_does_not_matter() -> None:
    straight = [pair(2, 1), pair(0.5, 1.5), pair(1, 1)]
    turned = [pair(2, 1, swap=True), pair(0.5, 1.5, swap=True), pair(1, 1, swap=True)]
    assert pairwise(Known(), straight).flat() == pairwise(Known(), turned).flat()


def test_a_ranking_gives_all_its_pairs_and_judged_ties_are_left_out() -> None:
    items = tuple(Sample("q", f"score={x}") for x in (3, 2, 2, 1))
    report = pairwise(Known(), [Judgement(items, rank=(0, 1, 1, 2))])
    assert (report.accuracy.value, report.accuracy.n, report.undecided) == (1.0, 5, 1)


def test_calibrated_scores_have_no_calibration_error() -> None:
    gap = math.log(3)  # sigmoid: 0.75
    judged = [pair(gap, 0)] * 3 + [pair(0, gap)]
    report = pairwise(Known(), judged)
    assert report.accuracy.value == 0.75
    assert report.ece == pytest.approx(0, abs=1e-6)


def test_similar_length_and_length_rule_look_at_characters() -> None:
    same = pair(2, 1)
    long = Judgement((Sample("q", "score=5"), Sample("q", "score=0" + "0" * 40)), rank=(0, 1))
    report = pairwise(Known(), [same, long])
    assert (report.similar_length.n, report.length_rule) == (1, "shorter")
    assert report.length_only.value == 0.75
    assert pairwise(Known(), [same, long], rule="longer").length_only.value == 0.25


def test_batches_change_nothing_but_a_batch_reward_sees_everything() -> None:
    judged = [pair(i % 3, 1, f"q{i}") for i in range(7)]
    small, whole = Known(), Known("batch")
    assert pairwise(small, judged, batch=2).flat() == pairwise(whole, judged, batch=2).flat()
    assert small.sizes == [4, 4, 4, 2]
    assert whole.sizes == [14]


def test_the_report_is_json_even_where_nothing_is_defined() -> None:
    flat = pairwise(Known(), [pair("broken", 1)]).flat()
    assert flat["accuracy"] is None
    assert json.loads(json.dumps(flat, allow_nan=False)) == flat


def test_ratings_of_one_item_are_no_comparisons() -> None:
    with pytest.raises(ValueError, match="two or more"):
        pairwise(Known(), [Judgement((Sample("q", "score=1"),), rating=(1.0,))])
