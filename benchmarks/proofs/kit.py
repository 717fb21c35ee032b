"""What the proofs share: figures by generator, method and seed; a page with pictures."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rewardkit.evals.report.charts import drawing
from rewardkit.evals.report.page import Page, Section, Table, Tile
from rewardkit.measures.intervals import mean_interval

COLOURS = ("#3867d6", "#20876b", "#c77d0a", "#a23b72")


@dataclass(frozen=True)
class Run:
    """How often, and where progress is said."""

    seeds: int
    say: Callable[[str], None]


@dataclass
class Proof:
    """Figures of a world."""

    world: str
    note: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    curves: dict[str, list[list[dict[str, float]]]] = field(default_factory=dict)
    points: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    highest: float | None = None

    def add(self, kind: str, method: str, seed: int, figures: Mapping[str, float]) -> str:
        """Keep one run's figures; returns a line about them."""
        self.rows.append({"kind": kind, "method": method, "seed": seed, **figures})
        return f"{self.world} {kind}, {method}, seed {seed}: " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items())

    def summary(self) -> list[dict[str, Any]]:
        """Means over seeds with their 95% t-intervals, by kind and method."""
        found = []
        for kind, method in dict.fromkeys((r["kind"], r["method"]) for r in self.rows):
            rows = [r for r in self.rows if (r["kind"], r["method"]) == (kind, method)]
            names = [k for k in rows[0] if k not in ("kind", "method", "seed")]
            values = {k: [r[k] for r in rows] for k in names}
            one = {"kind": kind, "method": method, "seeds": len(rows)}
            one |= {k: statistics.fmean(v) for k, v in values.items()}
            if len(rows) > 1:
                one["intervals"] = {k: mean_interval(v) for k, v in values.items()}
            found.append(one)
        return found

    def page(self) -> str:
        """The page, with no link to anything outside."""
        rows = self.summary()
        before = {r["kind"]: r["gold"] for r in rows if r["method"] == "base"}
        better = [r for r in rows if r["method"] != "base" and r["gold"] > before[r["kind"]]]
        trained = [r for r in rows if r["method"] != "base"]
        return Page(
            title=f"World {self.world}",
            lede="One learned reward, three ways to optimise a generator against it, with the losses, credit and loop "
            "that language models are trained with.",
            verdict=f"Gold rose in {len(better)} of {len(trained)} settings; {self.note}.",
            lead_chart=self._curve(),
            lead_caption="Gold itself with a KL in the reward: the regularised objective against its exact maximum.",
            tiles=[
                Tile(f"{r['gold']:+.2f}", f"{r['kind']}, {r['method']} (from {before[r['kind']]:+.2f})")
                for r in trained[:4]
            ],
            sections=[
                Section("Figures", table=_table(rows)),
                Section("What they draw", charts=[self._scatter(name) for name in self.points]),
            ],
        ).html()

    def _curve(self) -> str:
        with drawing(1, 1, 9.2, 3.6) as (_, axis, out):
            for (kind, runs), colour in zip(self.curves.items(), COLOURS, strict=False):
                for i, run in enumerate(runs):
                    steps, height = [p["step"] for p in run], [p["objective"] for p in run]
                    axis.plot(steps, height, marker="o", ms=3, color=colour, label=kind if i == 0 else None)
            if self.highest is not None:
                axis.axhline(self.highest, color="#c77d0a", ls="--", label="exact maximum")
            axis.set_xlabel("turn")
            axis.set_ylabel("gold - beta KL")
            axis.legend(loc="lower right")
        return out[0]

    def _scatter(self, name: str) -> str:
        with drawing(1, 1, 4.6, 4.2) as (_, axis, out):
            for prompt, colour in zip(self.points[name], COLOURS, strict=False):
                x = self.points[name][prompt]
                axis.scatter(x[:, 0], x[:, 1], s=4, color=colour, alpha=0.5, label=prompt, linewidths=0)
            axis.set_xlim(-3, 3)
            axis.set_ylim(-3, 3)
            axis.set_aspect("equal")
            axis.set_title(name)
        return out[0]


def _table(rows: list[dict[str, Any]]) -> Table:
    names = [k for k in rows[0] if k not in ("kind", "method", "seeds", "intervals")]

    def cell(row: dict[str, Any], name: str) -> str:
        if name not in row:
            return ""
        low, high = row.get("intervals", {}).get(name, (None, None))
        return f"{row[name]:.3f}" + (f"\n[{low:.2f}, {high:.2f}]" if low is not None else "")

    return Table(
        ["generator", "method", *names], [[r["kind"], r["method"], *(cell(r, n) for n in names)] for r in rows]
    )
