"""The recipe protocol: what may be declared, and how a verdict comes about."""

from __future__ import annotations

import pytest

from rewardkit.papers.recipe import Arm, Expect, Outcome, Recipe, judge, overall


def nothing(run):
    return {}


def recipe(**options):
    settings = {
        "slug": "x",
        "arms": {"a": Arm(nothing), "b": Arm(nothing)},
        "expectations": [Expect("more", "gold", "a", "b", low=0)],
        **options,
    }
    return Recipe(**settings)


def figures(a, b):
    return {"a": {i: {"gold": v} for i, v in enumerate(a)}, "b": {i: {"gold": v} for i, v in enumerate(b)}}


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ([1.0, 1.1, 0.9], [0.0, 0.1, -0.1], "shown"),
        ([0.0, 0.1, -0.1], [1.0, 1.1, 0.9], "contrary"),
        ([1.0, 0.0, -1.0], [0.0, 0.1, -0.1], "not shown at this scale"),
    ],
)
def test_the_interval_of_the_paired_difference_decides(a, b, verdict):
    assert judge(Expect("more", "gold", "a", "b", low=0), figures(a, b)).verdict == verdict


def test_pairing_by_seed_removes_what_the_seeds_share():
    a, b = [1.0, 5.0, 9.0], [0.5, 4.4, 8.6]
    assert judge(Expect("more", "gold", "a", "b", low=0), figures(a, b)).verdict == "shown"


def test_what_is_exact_must_hold_on_every_seed():
    expect = Expect("small", "gold", "a", high=1e-3, every=True)
    assert judge(expect, figures([1e-4, 2e-4, 9e-4], [0])).verdict == "shown"
    assert judge(expect, figures([1e-4, 2e-4, 2e-3], [0])).verdict == "not shown at this scale"
    assert judge(expect, figures([2e-3, 3e-3, 2e-3], [0])).verdict == "contrary"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None])
def test_a_figure_that_is_not_finite_shows_nothing(value):
    expect = Expect("more", "gold", "a", low=0)
    assert judge(expect, figures([1.0, value, 1.0], [0])).verdict == "not shown at this scale"


def test_an_arm_without_the_figure_is_named():
    with pytest.raises(KeyError, match="arm 'a' reports no figure 'golden'"):
        judge(Expect("more", "golden", "a", low=0), figures([1.0], [0.0]))


def test_the_whole_is_shown_only_if_every_part_is():
    shown, unsure, contrary = (Outcome("", 0, 0, 0, v) for v in ("shown", "not shown at this scale", "contrary"))
    assert overall([shown, shown]) == "shown"
    assert overall([shown, unsure]) == "not shown at this scale"
    assert overall([shown, unsure, contrary]) == "contrary"


def test_the_interval_is_students_and_a_single_seed_is_its_own():
    expect = Expect("more", "gold", "a", low=0)
    one = judge(expect, figures([2.0], [0]))
    assert (one.mean, one.low, one.high) == (2.0, 2.0, 2.0)
    four = judge(expect, figures([1.0, 2.0, 3.0, 4.0], [0]))
    assert (four.mean, round(four.low, 3), round(four.high, 3)) == (2.5, 0.446, 4.554)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seeds": (0, 1)}, "at least three seeds"),
        ({"seeds": (0, 0, 0)}, "at least three seeds"),
        ({"grid": ({"lr": 1}, {"lr": 2})}, "no figure to choose by"),
        ({"grid": ({"lr": 1}, {"lr": 2}), "tune": "gold"}, "tuned by 'gold', which"),
        ({"tune_seed": 1}, "which is one of its seeds"),
        ({"expectations": [Expect("x", "gold", "c", low=0)]}, "names the arm 'c'"),
        ({"arms": {}}, "needs arms"),
    ],
)
def test_a_recipe_that_could_flatter_itself_is_refused(options, said):
    with pytest.raises(ValueError, match=said):
        recipe(**options)


def test_an_expectation_without_a_bound_is_refused():
    with pytest.raises(ValueError, match="needs a bound"):
        Expect("anything", "gold", "a")
