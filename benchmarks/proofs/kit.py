"""What the proofs share: the ways of training, figures by generator, method and seed, a page with pictures."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from rewardkit.credit.base import chain
from rewardkit.credit.group import group_relative
from rewardkit.credit.kl import kl_penalty
from rewardkit.data.rows import attach, comparison_rows
from rewardkit.evals.report.charts import drawing
from rewardkit.evals.report.page import Page, Section, Shown, Table, Tile
from rewardkit.feedback.pairs import best_worst_pairs
from rewardkit.loops.online import online
from rewardkit.loops.prompts import PromptSet
from rewardkit.measures.intervals import mean_interval
from rewardkit.objectives.path import path_gradient
from rewardkit.objectives.policy import clipped
from rewardkit.objectives.policy import kl as kl_loss
from rewardkit.objectives.preference import dpo
from rewardkit.objectives.reward import bradley_terry
from rewardkit.training.fit import fit
from rewardkit.training.learner import Learner
from rewardkit.training.reference import attach_reference
from rewardkit.training.term import Term
from rewardkit.types import Judgement, Rollout

COLOURS = ("#3867d6", "#20876b", "#c77d0a", "#a23b72")
GREY = "#66727f"


def compared(judge: Callable[..., list[Judgement]], drawn: Rollout, times: int, *, seed: int) -> list[Judgement]:
    """Comparisons of outputs of one prompt, each output in up to ``times`` of them.

    Args:
        judge: ``(first, second, seed=) -> judgements``, a world's annotators.
    """
    chance, first, second = torch.Generator().manual_seed(seed), [], []
    for group in drawn.group.unique():
        rows = (drawn.group == group).nonzero()[:, 0]
        for _ in range(times):
            mixed = rows[torch.randperm(len(rows), generator=chance)].tolist()
            first += mixed[: len(rows) // 2]
            second += mixed[len(rows) // 2 : len(rows) // 2 * 2]
    return judge([drawn.samples[i] for i in first], [drawn.samples[i] for i in second], seed=seed)


def learned(reward: Any, judged: Sequence[Judgement], *, lr: float, epochs: float, batch: int, seed: int) -> Any:
    """The reward model, fitted in place by Bradley-Terry on comparisons."""
    rows = comparison_rows(judged)
    data = attach(reward.encode(rows.samples), rows)
    for _ in fit(Learner(reward, lr=lr), data, bradley_terry, epochs=epochs, batch=batch, seed=seed):
        pass
    return reward


def policy_gradient(
    policy: Any, reward: Any, prompts: Sequence[Any], *, beta: float, lr: float, seed: int, **options: Any
) -> None:
    """The same loop, credit and loss for every generator: KL in the reward, group-relative advantages, clipped ratio.

    Args:
        policy: trained in place. beta: reward units a nat. options: of ``online``: ``n``, ``steps``, ``sampling``, ...
    """
    credit = chain(partial(kl_penalty, coef=beta), group_relative)
    given = {"reference": "start", "batch": len(prompts), "inner": 2, "seed": seed} | options
    for _ in online(Learner(policy, lr=lr), PromptSet(prompts), reward, credit, clipped, **given):
        pass


def preferences(policy: Any, drawn: Rollout, reward: Any, *, beta: float, lr: float, epochs: float, seed: int) -> None:
    """The same DPO for every generator, on outputs of the base policy: best against worst of each group by the reward.

    Args:
        policy: trained in place. drawn: its outputs, at least two a group.
    """
    chosen = best_worst_pairs(drawn, reward(drawn)).samples
    pairs = [Judgement((a, b), rank=(0, 1)) for a, b in zip(chosen[0::2], chosen[1::2], strict=True)]

    def encode(units: list[Judgement]) -> Rollout:
        rows = comparison_rows(units)
        return attach_reference(attach(policy.encode(rows.samples), rows), policy.at("start"))

    objective = partial(dpo, beta=beta)
    for _ in fit(Learner(policy, lr=lr), pairs, objective, encode=encode, epochs=epochs, batch=64, seed=seed):
        pass


def backpropagation(
    policy: Any, draw: Callable[[int], Rollout], want: Any, *, beta: float, lr: float, steps: int, seed: int
) -> None:
    """The reward's own gradient through what made an output, with the KL as a second term.

    Args:
        policy: trained in place. draw: outputs of it, from a seed. want: the path's value, which ``path_gradient``
            reads.
    """
    learner = Learner(policy, lr=lr)
    for step in range(steps):
        rollout = attach_reference(draw(seed * 10_007 + step), policy.at("start"))
        learner.step(
            Term(rollout, path_gradient, want=(want,)), Term(rollout, kl_loss, coef=beta, reduce="sequence_sums")
        )


@dataclass(frozen=True)
class Run:
    """How often, and where progress is said."""

    seeds: int
    say: Callable[[str], None]


@dataclass(frozen=True)
class Curve:
    """What a proof's curves show.

    Args:
        figure: its name in every point of a curve, beside ``step``. label: of the vertical axis. caption: below the
            chart. logarithmic: both axes, for what falls towards 0.
    """

    figure: str = "objective"
    label: str = "gold - beta KL"
    caption: str = "Gold itself with a KL in the reward: the regularised objective against its exact maximum."
    logarithmic: bool = False


@dataclass
class Proof:
    """Figures of a world."""

    world: str
    note: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    curves: dict[str, list[list[dict[str, float]]]] = field(default_factory=dict)
    pictures: list[str] = field(default_factory=list)
    samples: list[Shown] = field(default_factory=list)
    highest: float | None = None
    curve: Curve = Curve()

    def add(self, kind: str, method: str, seed: int, figures: Mapping[str, float]) -> str:
        """Keep one run's figures; returns a line about them."""
        self.rows.append({"kind": kind, "method": method, "seed": seed, **figures})
        return f"{self.world} {kind}, {method}, seed {seed}: " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items())

    def train(
        self,
        run: Run,
        kind: str,
        base: Any,
        methods: Mapping[str, Callable[[Any, Any, int], None]],
        reward: Any,
        seed: int,
        *,
        measure: Callable[[Any], Mapping[str, float]],
        show: Callable[[str, Any], None],
    ) -> None:
        """Every method on a copy of ``base`` against ``reward``: its figures, and of the first seed what it makes."""
        for name, method in methods.items():
            policy = copy.deepcopy(base)
            method(policy, reward, seed)
            run.say(self.add(kind, name, seed, measure(policy)))
            if seed == 0:
                show(name, policy)

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
        trained = [r for r in rows if r["method"] != "base"]
        lowest = [r.get("intervals", {}).get("gold", (r["gold"],))[0] for r in trained]
        better = [r for r, low in zip(trained, lowest, strict=True) if low > before[r["kind"]]]
        first = {r["kind"]: r for r in reversed(trained)}
        head = trained if len(first) == 1 else [first[kind] for kind in before]
        return Page(
            title=f"World {self.world}",
            lede="One learned reward, and ways to optimise a generator against it with the losses, credit and loop "
            "that language models are trained with.",
            verdict=f"Gold rose in {len(better)} of {len(trained)} settings, by their whole intervals; {self.note}.",
            lead_chart=self._curve() if self.curves else self._bars(rows),
            lead_caption=self.curve.caption
            if self.curves
            else "Gold by method, means over seeds with their 95% intervals.",
            tiles=[
                Tile(f"{r['gold']:+.2f}", f"{r['kind']}, {r['method']} (from {before[r['kind']]:+.2f})")
                for r in head[:4]
            ],
            sections=[
                Section("Figures", table=_table(rows)),
                Section("What they make", charts=self.pictures, samples=self.samples),
            ],
        ).html()

    def _curve(self) -> str:
        with drawing(1, 1, 9.2, 3.6) as (_, axis, out):
            for (kind, runs), colour in zip(self.curves.items(), COLOURS, strict=False):
                for i, run in enumerate(runs):
                    steps, height = [p["step"] for p in run], [p[self.curve.figure] for p in run]
                    axis.plot(steps, height, marker="o", ms=3, color=colour, label=kind if i == 0 else None)
            if self.highest is not None:
                axis.axhline(self.highest, color=GREY, ls="--", label="exact maximum")
            axis.set_xlabel("turn")
            axis.set_ylabel(self.curve.label)
            if self.curve.logarithmic:
                axis.set_xscale("log")
                axis.set_yscale("log")
            axis.legend(loc="lower left" if self.curve.logarithmic else "lower right")
        return out[0]

    def _bars(self, rows: list[dict[str, Any]]) -> str:
        with drawing(1, 1, 9.2, 0.5 + 0.42 * len(rows)) as (_, axis, out):
            for i, r in enumerate(rows):
                low, high = r.get("intervals", {}).get("gold", (r["gold"], r["gold"]))
                axis.plot([low, high], [i, i], color=COLOURS[0])
                axis.plot([r["gold"]], [i], marker="o", color=COLOURS[0])
            axis.set_yticks(range(len(rows)), [f"{r['kind']}, {r['method']}" for r in rows])
            axis.invert_yaxis()
            axis.set_xlabel("gold")
        return out[0]


def gold_by_kl(rows: Sequence[Mapping[str, Any]], *, ylabel: str = "gold") -> str:
    """Gold against KL to the base, a point a run and a colour a method, as a picture."""
    with drawing(1, 1, 9.2, 3.6) as (_, axis, out):
        for method, colour in zip(dict.fromkeys(r["method"] for r in rows), (GREY, *COLOURS), strict=False):
            own = [r for r in rows if r["method"] == method]
            axis.scatter([r["kl"] for r in own], [r["gold"] for r in own], s=26, color=colour, label=method)
        axis.set_xlabel("KL to the base (nats an output)")
        axis.set_ylabel(ylabel)
        axis.legend(loc="lower right")
    return out[0]


def scatter(name: str, points: Mapping[str, Any], *, limit: float = 3) -> str:
    """Points in the plane by prompt, as a picture."""
    with drawing(1, 1, 4.6, 4.2) as (_, axis, out):
        for (prompt, x), colour in zip(points.items(), COLOURS, strict=False):
            axis.scatter(x[:, 0], x[:, 1], s=4, color=colour, alpha=0.5, label=prompt, linewidths=0)
        axis.set_xlim(-limit, limit)
        axis.set_ylim(-limit, limit)
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
