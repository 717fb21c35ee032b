"""Figures of motion in edits: right, copied and astray edits of a world with exact flow."""

from __future__ import annotations

import pytest
import torch

from rewardkit.evals.motion_editing import motion_editing
from rewardkit.types import Sample
from rewardkit.worlds.moving_shapes import MovingShapes, flows


@pytest.mark.parametrize(
    ("copied", "astray", "direction", "still"), [(0.0, 0.0, 1.0, 0.0), (1.0, 0.0, 0.0, 1.0), (0.0, 1.0, -0.4, 0.0)]
)
def test_figures_of_edits_whose_motion_is_known(copied: float, astray: float, direction: float, still: float) -> None:
    samples = MovingShapes().demonstrations(60, seed=1, copied=copied, astray=astray)
    found = motion_editing(samples, flows)
    assert set(found) == {"alignment", "direction", "error", "still"}
    assert found["direction"].value == pytest.approx(direction, abs=0.35 if astray else 0.02)
    assert found["still"].value == pytest.approx(still, abs=0.02)
    assert all(m.n == 60 for m in found.values())
    if not copied and not astray:
        assert found["error"].value < 0.2
        assert found["alignment"].value > 0.97


def test_an_unchanged_picture_is_an_error_of_the_whole_way() -> None:
    samples = MovingShapes().demonstrations(60, seed=1, copied=1.0, astray=0.0)
    ways = [sum(abs(s) for s in sample.prompt.shift) for sample in samples]
    assert motion_editing(samples, flows)["error"].value == pytest.approx(sum(ways) / len(ways), abs=0.05)


def test_an_edit_that_asks_for_no_motion_spoils_no_figure() -> None:
    right = torch.zeros(2, 4, 4)
    right[0] = 2.0
    found = motion_editing([Sample("p", right), Sample("p", 0 * right)], lambda s: (s.output, s.output))
    for name, value in {"direction": 1.0, "error": 0.0, "still": 0.0}.items():
        assert (found[name].value, found[name].n, found[name].invalid) == (value, 1, 1)
