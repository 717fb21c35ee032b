"""What the demo found, and the figures of ``summary.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rewardkit.evals.frontier import overoptimization_curve
from rewardkit.evals.overoptimization import Point, stopping_point
from rewardkit.measures.intervals import mean_interval


@dataclass(frozen=True)
class Track:
    """One method with one seed: its measured points, the first being the SFT model (or n = 1).

    Args:
        points: in order of optimisation. noise: what gold must fall by, after its largest value, to count as a fall.
        seconds: what it took, measuring included. outputs: completions that were
            sampled to train (or to choose from).
    """

    points: Sequence[Point]
    noise: float
    seconds: float
    outputs: int

    @property
    def stop(self) -> int:
        """Index of the point that the annotators on the validation prompts would have stopped at."""
        return stopping_point(self.points)

    @property
    def peak(self) -> int:
        """Index of the largest gold reward."""
        return max(range(len(self.points)), key=lambda i: self.points[i].gold)

    @property
    def fell(self) -> bool:
        """Whether gold fell after its largest value within the run."""
        kl, proxy, gold = zip(*((p.kl, p.proxy, p.gold) for p in self.points), strict=True)
        return overoptimization_curve(kl, proxy, gold, tolerance=self.noise).peaked

    def figures(self) -> dict[str, Any]:
        """The fields that every method reports."""
        stop, peak = self.points[self.stop], self.points[self.peak]
        return {
            "gold_before": self.points[0].gold,
            "gold_after": stop.gold,
            "gold_peak": peak.gold,
            "gold_last": self.points[-1].gold,
            "gold_winrate_vs_sft": stop.winrate,
            "proxy_before": self.points[0].proxy,
            "proxy_after": stop.proxy,
            "proxy_last": self.points[-1].proxy,
            "kl_at_peak": peak.kl,
            "kl_at_stop": stop.kl,
            "kl_last": self.points[-1].kl,
            "step_at_peak": peak.step,
            "step_at_stop": stop.step,
            "peak_within_run": self.fell,
            "length_before": self.points[0].length,
            "length_after": stop.length,
            "seconds": self.seconds,
            "outputs_sampled": self.outputs,
        }


def over_seeds(tracks: Sequence[Track]) -> dict[str, Any]:
    """Means over seeds; with several seeds also ``intervals``, the 95% t-interval of each mean."""
    rows = [t.figures() for t in tracks]
    numbers = [k for k, v in rows[0].items() if not isinstance(v, bool)]
    found: dict[str, Any] = {k: math.fsum(r[k] for r in rows) / len(rows) for k in numbers}
    found["peak_within_run"] = sum(r["peak_within_run"] for r in rows) / len(rows)
    if len(rows) > 1:
        found["intervals"] = {k: mean_interval([r[k] for r in rows]) for k in numbers}
    found["points"] = [[asdict(p) for p in t.points] for t in tracks]
    return found


def falls(tracks: Sequence[Track]) -> list[Track]:
    """The seeds to speak of a peak by: those in which gold fell within the run, if they are most; else none."""
    fell = [t for t in tracks if t.fell]
    return fell if 2 * len(fell) > len(tracks) else []


def summary(
    tracks: Mapping[str, Sequence[Track]], reward_model: Mapping[str, Any], *, seeds: Sequence[int], seconds: float
) -> dict[str, Any]:
    """``summary.json``: GRPO's figures at the top, the same for ``dpo`` and ``best_of_n``, and the reward model's.

    ``seconds`` at the top are those of the whole demo, which ran once: they have no interval.
    """
    own = {name: over_seeds(t) for name, t in tracks.items()}
    top = dict(own["grpo"])
    if "intervals" in top:
        top["intervals"] = {k: v for k, v in top["intervals"].items() if k != "seconds"}
    return {
        "rm_accuracy": reward_model["accuracy"],
        "rm_accuracy_ceiling": reward_model["ceiling"],
        **top,
        "seconds": seconds,
        "seeds": list(seeds),
        "grpo": own["grpo"],
        "dpo": own["dpo"],
        "best_of_n": own["best_of_n"],
        "reward_model": dict(reward_model),
    }
