"""Progress display."""

from __future__ import annotations

import io

from rewardkit.training import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_lines_show_count_time_left_and_figures_without_a_terminal() -> None:
    out = io.StringIO()
    shown = list(progress([0.5, 0.25], label="fit", show=lambda x: {"loss": x}, stream=out, every=0.0))
    assert shown == [0.5, 0.25]
    first, last = out.getvalue().splitlines()
    assert first == "fit 1/2, 0:00 left  loss 0.5"
    assert last == "fit 2/2 in 0:00  loss 0.25"


def test_length_may_be_unknown_and_lines_are_sparse() -> None:
    out = io.StringIO()
    list(progress((i for i in range(100)), label="walk", stream=out, every=60.0))
    assert out.getvalue() == "walk 100 in 0:00\n"


def test_terminal_gets_a_bar_with_time_left() -> None:
    out = Terminal()
    assert list(progress(range(3), label="fit", show=lambda i: {"i": i}, stream=out)) == [0, 1, 2]
    assert "3/3" in out.getvalue()
    assert "left" in out.getvalue()


def test_things_are_handed_on_one_by_one() -> None:
    pulled = []

    def things():
        for i in range(3):
            pulled.append(i)
            yield i

    walk = progress(things(), stream=io.StringIO())
    assert (next(walk), pulled) == (0, [0])
