"""Charts as inline SVG. Pure functions of numbers; every colour and size in one place."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

INK, MUTED, GRID = "#1f2933", "#66727f", "#e4e8ee"
PROXY, GOLD, KL = "#3867d6", "#c77d0a", "#7a5195"
METHODS = {"grpo": "#c77d0a", "dpo": "#20876b", "best_of_n": "#a23b72"}

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "rewardkit",
    "font.family": "sans-serif",
    "font.size": 10.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
}


@contextmanager
def drawing(
    rows: int, columns: int, width: float, height: float, **options: Any
) -> Iterator[tuple[Any, Any, list[str]]]:
    """A figure whose SVG is appended to the list that is yielded with it."""
    import matplotlib
    from matplotlib.figure import Figure

    rendered: list[str] = []
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(rows, columns, **options)
        yield figure, axes, rendered
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    # A page scales the drawing: the view box keeps its proportions, fixed points would not.
    rendered.append(
        re.sub(
            r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1), count=1
        )
    )


def _mean_line(
    axis: Any, xs: Sequence[Sequence[float]], ys: Sequence[Sequence[float]], colour: str, label: str
) -> None:
    """Every seed as a thin line and, where there are several on the same steps, their mean as a thick one."""
    for x, y in zip(xs, ys, strict=True):
        axis.plot(x, y, color=colour, lw=2.2 if len(xs) == 1 else 0.9, alpha=1.0 if len(xs) == 1 else 0.4)
    if len(xs) > 1:
        length = min(map(len, ys))
        axis.plot(np.mean([x[:length] for x in xs], 0), np.mean([y[:length] for y in ys], 0), color=colour, lw=2.4)
    axis.plot([], [], color=colour, lw=2.2, label=label)


def overoptimisation(
    steps: Sequence[Sequence[float]],
    proxy: Sequence[Sequence[float]],
    gold: Sequence[Sequence[float]],
    kl: Sequence[Sequence[float]],
    *,
    peak_step: float | None,
    stop_step: float | None,
    peak_label: str,
) -> str:
    """The chart that a report leads with: proxy and gold reward above, KL below, over training steps.

    Args:
        steps, proxy, gold, kl: one sequence a seed; rewards in units of the starting policy's own spread.
        peak_step, stop_step: where gold peaked, and where the run was stopped, or ``None``.
        peak_label: what to write at the peak.

    Returns:
        an ``<svg>`` element.
    """
    with drawing(2, 1, 9.2, 5.2, sharex=True, height_ratios=[2.4, 1]) as (_, (top, bottom), out):
        _mean_line(top, steps, proxy, PROXY, "proxy: the learned reward")
        _mean_line(top, steps, gold, GOLD, "gold: what training never sees")
        _mean_line(bottom, steps, kl, KL, "KL to the starting policy")
        top.set_ylabel("reward gained over SFT\n(SFT standard deviations)")
        bottom.set_ylabel("KL\n(nats a response)")
        bottom.set_xlabel("GRPO update")
        bottom.xaxis.get_major_locator().set_params(integer=True)
        top.axhline(0, color=MUTED, lw=0.8, ls=":")
        for step, text, height, colour, style in (
            (peak_step, peak_label, 0.08, GOLD, "--"),
            (stop_step, "stopped here", 0.18, INK, ":"),
        ):
            if step is None:
                continue
            for axis in (top, bottom):
                axis.axvline(step, color=colour, lw=1.1, ls=style)
            late = step > 0.6 * max(map(max, steps))  # there is no room on the right of a late line
            top.annotate(
                text,
                (step, height),
                xycoords=("data", "axes fraction"),
                xytext=(-5 if late else 5, 2),
                textcoords="offset points",
                ha="right" if late else "left",
                color=colour,
                fontsize=9.5,
            )
        top.legend(loc="upper left")
    return out[0]


def frontier(curves: Mapping[str, Sequence[Mapping[str, Sequence[float]]]], labels: Mapping[str, str]) -> str:
    """Proxy and gold reward against the square root of KL, a colour a method (Gao et al. 2023, arXiv:2210.10760).

    Args:
        curves: method -> one mapping a seed with ``kl``, ``proxy`` and ``gold``.
        labels: method -> name to print.
    """
    with drawing(1, 2, 9.2, 3.6, sharex=True) as (_, axes, out):
        for axis, key, title in zip(axes, ("proxy", "gold"), ("Proxy reward", "Gold reward"), strict=True):
            for method, seeds in curves.items():
                xs = [np.sqrt(np.maximum(c["kl"], 0.0)) for c in seeds]
                for x, c in zip(xs, seeds, strict=True):
                    axis.plot(x, c[key], color=METHODS[method], lw=1.4, marker="o", ms=3.2, alpha=0.85)
                axis.plot([], [], color=METHODS[method], lw=2, marker="o", ms=4, label=labels[method])
            axis.axhline(0, color=MUTED, lw=0.8, ls=":")
            axis.set_title(title)
            axis.set_xlabel("√KL to SFT (nats a response)")
        axes[0].set_ylabel("gained over SFT (SFT s.d.)")
        axes[0].legend(loc="upper left")
    return out[0]


def calibration(confidence: Sequence[float], accuracy: Sequence[float], counts: Sequence[int], ece: float) -> str:
    """Reliability diagram of pairs: how sure the model was of the reply it prefers, against how often it was right."""
    with drawing(1, 1, 4.6, 3.7) as (_, axis, out):
        axis.plot([0.5, 1], [0.5, 1], color=MUTED, lw=1, ls=":")
        sizes = 18 + 160 * np.asarray(counts) / max(1, max(counts, default=1))
        axis.plot(confidence, accuracy, color=PROXY, lw=1.2)
        axis.scatter(confidence, accuracy, s=sizes, color=PROXY, alpha=0.75, linewidths=0)
        axis.set_xlim(0.48, 1.02)
        axis.set_ylim(0.35, 1.02)
        axis.set_xlabel("confidence in the preferred reply")
        axis.set_ylabel("share in which it was preferred")
        axis.set_title(f"Calibration (error {ece:.3f})")
    return out[0]


def accuracies(rows: Sequence[tuple[str, float, tuple[float, float] | None, str]]) -> str:
    """Horizontal bars of accuracies from chance to one: ``(label, value, 95% interval or None, colour)``."""
    with drawing(1, 1, 4.6, 3.7) as (_, axis, out):
        for place, (_label, value, interval, colour) in enumerate(reversed(rows)):
            axis.barh(place, value - 0.5, left=0.5, color=colour, height=0.56)
            axis.text(
                value + 0.012 if interval is None else interval[1] + 0.012,
                place,
                f"{value:.3f}",
                va="center",
                fontsize=9.5,
            )
            if interval is not None:
                axis.plot(interval, [place, place], color=INK, lw=1.2)
        axis.set_yticks(range(len(rows)), [r[0] for r in reversed(rows)])
        axis.set_xlim(0.45, 1.0)
        axis.axvline(0.5, color=MUTED, lw=1)
        axis.grid(axis="y", visible=False)
        axis.set_xlabel("share of comparisons (0.5 is chance)")
        axis.set_title("Accuracy on held-out labels")
    return out[0]
