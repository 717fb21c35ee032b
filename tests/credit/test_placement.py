"""Where scores are paid."""

import pytest
import torch

from rewardkit.credit.placement import last_trained, leaves, place, unplaced
from rewardkit.types import ERROR, MISSING, OK, Rollout, Sample, Scores

MASK = torch.tensor([[1.0, 1.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
STEPS = torch.tensor([[0, 0, 1, -1], [0, 0, -1, 1], [-1, -1, -1, -1]])


def _rollout(mask=MASK, steps=STEPS) -> Rollout:
    return Rollout([Sample("x", str(i)) for i in range(len(mask))], mask, segments={"step": steps})


def test_an_outcome_is_paid_once_at_the_last_trained_position() -> None:
    """The EOS never goes unrewarded and is never rewarded twice; an empty response gets nothing, and is counted."""
    scores = Scores(torch.tensor([2.0, 3.0, 5.0]))
    placed = place(scores, _rollout())
    assert placed.tolist() == [[0, 0, 2, 0], [0, 0, 0, 3], [0, 0, 0, 0]]
    assert unplaced(scores, _rollout()).tolist() == [False, False, True]
    assert last_trained(MASK).tolist() == [2, 3, -1]


def test_tokens_stay_and_steps_go_to_the_end_of_their_segment() -> None:
    tokens = Scores(dense={"token": torch.full((3, 4), 1.0)})
    assert place(tokens, _rollout()).tolist() == MASK.tolist()
    steps = Scores(dense={"step": torch.tensor([[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]])})
    assert place(steps, _rollout()).tolist() == [[0, 1, 2, 0], [0, 3, 0, 4], [0, 0, 0, 0]]


def test_a_step_that_ends_in_untrained_positions_is_paid_at_its_last_trained_one() -> None:
    rollout = _rollout(torch.tensor([[1.0, 0.0, 0.0, 1.0]]), torch.tensor([[0, 0, 0, 1]]))
    assert place(Scores(dense={"step": torch.tensor([[5.0, 0.5]])}), rollout).tolist() == [[5.0, 0, 0, 0.5]]


def test_everything_placed_sums_to_what_was_scored() -> None:
    g = torch.Generator().manual_seed(0)
    mask = torch.ones(5, 8)
    steps = torch.arange(8).div(3, rounding_mode="floor").expand(5, 8)
    scores = Scores(torch.randn(5, generator=g), {"step": torch.randn(5, 3, generator=g)})
    placed = place(scores, _rollout(mask, steps))
    assert torch.allclose(placed.sum(1), scores.outcome + scores.dense["step"].sum(1), atol=1e-5)


def test_nested_parts_are_placed_at_the_product_of_their_weights() -> None:
    a, b = Scores(torch.tensor([1.0, 1.0, 1.0])), Scores(dense={"token": torch.ones(3, 4)})
    inner = Scores.combine({"a": a, "b": b}, {"a": 2.0, "b": 0.5})
    outer = Scores.combine({"inner": inner, "a": a}, {"inner": 10.0, "a": 1.0})
    assert [(n, w) for n, w, _ in leaves(outer)] == [("inner/a", 20.0), ("inner/b", 5.0), ("a", 1.0)]
    assert place(outer, _rollout()).tolist() == [[5, 5, 26, 0], [0, 5, 0, 26], [0, 0, 0, 0]]


def test_a_weight_of_zero_is_a_weight() -> None:
    """R56."""
    a, b = Scores(torch.tensor([1.0, 0.0, 0.0])), Scores(torch.tensor([7.0, 7.0, 7.0]))
    assert place(Scores.combine({"a": a, "b": b}, {"a": 1.0, "b": 0.0}), _rollout())[0, 2] == 1.0


def test_unscored_rows_get_nothing() -> None:
    status = torch.tensor([OK, ERROR, MISSING])
    scores = Scores(torch.tensor([1.0, float("nan"), float("inf")]), status=status)
    placed = place(scores, _rollout(torch.ones(3, 4), STEPS.clamp(min=0)))
    assert placed.tolist() == [[0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_nan_outside_the_mask_never_leaks() -> None:
    """R27."""
    tokens = torch.where(MASK > 0, 1.0, float("nan"))
    scores = Scores(dense={"token": tokens}, status=torch.tensor([ERROR, ERROR, ERROR]))
    assert torch.isfinite(place(scores, _rollout())).all()
    tokens = torch.where(MASK > 0, 1.0, 1e9)
    assert place(Scores(dense={"token": tokens}), _rollout()).max() == 1


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (Scores(dense={"step": torch.ones(3, 1)}), "step number 1, but only 1 step scores"),
        (Scores(dense={"token": torch.ones(3, 2)}), "scores tokens as"),
        (Scores(dense={"extent": torch.ones(3, 2)}), "extent"),
    ],
)
def test_scores_that_do_not_fit_are_refused(scores, message) -> None:
    with pytest.raises(ValueError, match=message):
        place(scores, _rollout())


def test_step_scores_need_numbered_steps() -> None:
    rollout = Rollout([Sample("x", "y")], torch.ones(1, 2))
    with pytest.raises(ValueError, match="has no 'step'"):
        place(Scores(dense={"step": torch.ones(1, 1)}), rollout)


def test_an_outcome_that_its_parts_do_not_add_up_to_is_refused() -> None:
    scores = Scores.combine({"a": Scores(torch.tensor([1.0, 2.0, 3.0]))}, {"a": 1.0})
    scores.outcome = scores.outcome.clamp(max=2.0)
    with pytest.raises(ValueError, match="not the weighted sum of its parts in row 2"):
        place(scores, _rollout())


def test_no_positions_at_all() -> None:
    rollout = Rollout([Sample("x", "")], torch.zeros(1, 0))
    assert place(Scores(torch.tensor([1.0])), rollout).shape == (1, 0)
    assert unplaced(Scores(torch.tensor([1.0])), rollout).tolist() == [True]
