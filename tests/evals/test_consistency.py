"""Agreement between wordings, and right verdicts for wrong reasons."""

from __future__ import annotations

import math

from rewardkit.evals.consistency import outcome_process_inconsistency, paraphrase_consistency


def test_only_different_wordings_are_compared():
    sure = [["a", "a"], ["b", "b"]]
    assert paraphrase_consistency([sure]).value == 0.0
    assert paraphrase_consistency([[["a", "b"], ["a", "b"]]]).value == 0.5


def test_every_question_counts_once_and_one_wording_is_none():
    found = paraphrase_consistency([[["a"], ["a"]], [["a"], ["b"], ["c"]], [["a"]]])
    assert (found.value, found.n, found.invalid) == (0.5, 2, 1)


def test_only_right_verdicts_can_be_right_for_the_wrong_reason():
    found = outcome_process_inconsistency([True, True, True, False], [True, False, False, False])
    assert (round(found.value, 4), found.n, found.invalid) == (0.6667, 3, 1)
    assert math.isnan(outcome_process_inconsistency([False], [True]).value)
