"""The demo's figures as a page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rewardkit.cli.demo.results import Track, falls, over_seeds
from rewardkit.evals.overoptimization import Point
from rewardkit.evals.report import charts
from rewardkit.evals.report.page import Page, Reply, Section, Shown, Table, Tile

LABELS = {"grpo": "GRPO", "dpo": "DPO", "best_of_n": "Best of n"}
OPTIMISED = {"grpo": "updates", "dpo": "updates", "best_of_n": "n"}


def build(
    tracks: Mapping[str, Sequence[Track]],
    summary: Mapping[str, Any],
    shown: Sequence[tuple[str, Mapping[str, str]]],
    *,
    spread: Mapping[str, float],
    marks: Callable[[int, str], str],
    facts: Sequence[str],
) -> Page:
    """The page of a demo run.

    Args:
        tracks: method -> one track a seed. summary: of :func:`rewardkit.cli.demo.results.summary`.
        shown: prompts with the replies to show, by who wrote them; all replies come from the first seed.
        spread: standard deviation of ``proxy`` and ``gold`` over the SFT model's replies: the unit of the charts.
        marks: (number of the prompt, reply) -> the line of marks beside it.
        facts: lines for the footer: versions, seeds, costs.
    """
    grpo = summary["grpo"]
    return Page(
        title="A reward learned, optimised, and put to the test",
        lede=("A smoke run: next to no data, so the figures below mean nothing. " if summary.get("smoke") else "")
        + (
            "World assistant: a small language model answers requests for advice. A reward model learned from "
            "rankings by simulated annotators, who are noisy, disagree, and like length. Policies were then "
            "optimised against that reward model, and judged by a gold reward that no training ever saw."
        ),
        verdict=verdict(tracks["grpo"], grpo),
        lead_chart=_lead(tracks["grpo"], spread),
        lead_caption=(
            "GRPO on held-out test prompts. The proxy is what was optimised, gold is what was wanted; both as the gain "
            "over the SFT model in standard deviations of its replies, so that 0 is where both began. "
            + ("Thin lines are seeds, the thick line their mean. " if len(tracks["grpo"]) > 1 else "")
            + "The stopping point was chosen without gold: see Stopping."
        ),
        tiles=_tiles(summary),
        sections=[
            _methods(tracks, summary, spread),
            _stopping(tracks["grpo"]),
            _reward_model(summary["reward_model"]),
            _samples(shown, marks),
        ],
        footer=facts,
    )


def verdict(tracks: Sequence[Track], grpo: Mapping[str, Any]) -> str:
    """What happened, in words that follow from the figures. A peak is one where gold fell in most seeds."""
    fell, several = falls(tracks), len(tracks) > 1
    gain = grpo["gold_after"] - grpo["gold_before"]
    stop = (
        f"Stopped where annotators could no longer tell the gain ({grpo['kl_at_stop']:.1f} nats of KL), gold stood at "
        f"{grpo['gold_after']:.2f}, {'up' if gain >= 0 else 'down'} from {grpo['gold_before']:.2f}, and gold preferred "
        f"the reply to the SFT model's on {grpo['gold_winrate_vs_sft']:.0%} of the test prompts."
    )
    if not fell:
        share = f" (it fell in {sum(t.fell for t in tracks)} of {len(tracks)} seeds)" if several else ""
        peak = (
            f"No peak within the run: gold was still at its largest, {grpo['gold_peak']:.2f}, within the noise of the "
            f"measurement, when the run ended{share}."
        )
    else:
        there = over_seeds(fell)
        share = f" (means over the {len(fell)} of {len(tracks)} seeds in which it fell)" if several else ""
        peak = (
            f"Gold peaked at {there['gold_peak']:.2f} around update {there['step_at_peak']:.0f}, "
            f"{there['kl_at_peak']:.1f} nats from the SFT model, and fell to {there['gold_last']:.2f} by the end of "
            f"the run, while the proxy went from {there['proxy_before']:.2f} to {there['proxy_last']:.2f}{share}."
        )
    return f"{peak} {stop}"


def _gains(points: Sequence[Point], key: str, spread: Mapping[str, float]) -> list[float]:
    first = getattr(points[0], key)
    return [(getattr(p, key) - first) / spread[key] for p in points]


def _lead(tracks: Sequence[Track], spread: Mapping[str, float]) -> str:
    fell = falls(tracks)
    marked = fell or tracks
    peak = math.fsum(t.points[t.peak].step for t in marked) / len(marked)
    stop = math.fsum(t.points[t.stop].step for t in tracks) / len(tracks)
    share = "" if len(fell) == len(tracks) else f" ({len(fell)} of {len(tracks)} seeds)"
    return charts.overoptimisation(
        [[p.step for p in t.points] for t in tracks],
        [_gains(t.points, "proxy", spread) for t in tracks],
        [_gains(t.points, "gold", spread) for t in tracks],
        [[p.kl for p in t.points] for t in tracks],
        peak_step=peak,
        stop_step=stop,
        peak_label=f"gold peaks{share}" if fell else "largest gold (no peak within the run)",
    )


def _tiles(summary: Mapping[str, Any]) -> list[Tile]:
    rm = summary["reward_model"]
    return [
        Tile(f"{summary['gold_winrate_vs_sft']:.0%}", "of test prompts where gold prefers GRPO's reply to SFT's"),
        Tile(
            f"{summary['gold_before']:.2f} → {summary['gold_after']:.2f}", "gold reward, SFT to GRPO's stopping point"
        ),
        Tile(f"{summary['kl_at_peak']:.1f} nats", "KL from SFT where gold was largest"),
        Tile(f"{rm['accuracy']:.3f} of {rm['ceiling']:.3f}", "reward model's accuracy, of what gold itself reaches"),
    ]


def _cell(figures: Mapping[str, Any], key: str, form: str) -> str:
    text = format(figures[key], form)
    if "intervals" not in figures:
        return text
    low, high = figures["intervals"][key]
    return f"{text}\n[{format(low, form)}, {format(high, form)}]"


def _methods(tracks: Mapping[str, Sequence[Track]], summary: Mapping[str, Any], spread: Mapping[str, float]) -> Section:
    curves = {
        name: [
            {
                "kl": [p.kl for p in t.points],
                "proxy": _gains(t.points, "proxy", spread),
                "gold": _gains(t.points, "gold", spread),
            }
            for t in seeds
        ]
        for name, seeds in tracks.items()
    }
    rows = []
    for name in tracks:
        f = summary[name]
        rows.append(
            [
                LABELS[name],
                _cell(f, "gold_winrate_vs_sft", ".1%"),
                _cell(f, "gold_after", ".2f"),
                _cell(f, "gold_peak", ".2f"),
                _cell(f, "gold_last", ".2f"),
                _cell(f, "kl_at_stop", ".1f"),
                _cell(f, "length_after", ".0f"),
                f"{f['step_at_stop']:.0f} {OPTIMISED[name]}",
                f"{f['outputs_sampled']:,.0f}",
            ]
        )
    texts = [
        "The same reward model, optimised three ways. GRPO and DPO change the weights; best of n samples n replies "
        "from the SFT model and keeps the one that the reward model likes best, so its cost is paid at every request. "
        "Its KL is the closed form log n − (n − 1)/n.",
    ]
    if any("intervals" in summary[name] for name in tracks):
        texts.append("In brackets below each figure, the 95% t-interval of the mean over seeds.")
    head = [
        "",
        "win rate over SFT",
        "gold at the stop",
        "largest gold",
        "gold at the end",
        "KL (nats)",
        "length (tokens)",
        "stopped at",
        "replies sampled",
    ]
    return Section("Three ways to use the same reward", texts, [charts.frontier(curves, LABELS)], Table(head, rows))


def _stopping(tracks: Sequence[Track]) -> Section:
    points = tracks[0].points
    texts = [
        "Gold is not there to choose by when it matters, so it was not used. At every measurement, annotators compared "
        f"the policy's replies with the SFT model's on {points[0].asked} validation prompts. The run is stopped at the "
        "least KL whose preference rate lies within one standard error of the best: more optimisation that nobody "
        "notices is only more risk. Annotators share the biases that the reward model learned, so this rule can stop "
        "late; the distance between the stop and the peak above shows by how much.",
    ]
    rows = [
        [
            f"{p.step}", f"{p.kl:.2f}", f"{p.preferred:.1%}", f"{p.proxy:.2f}", f"{p.gold:.2f}", f"{p.winrate:.1%}",
            f"{p.length:.0f}",
            " ".join(w for w, i in (("stop", tracks[0].stop), ("peak", tracks[0].peak)) if i == k),
        ]
        for k, p in enumerate(points)
    ]  # fmt: skip
    head = [
        "update", "KL (nats)", "annotators prefer it (validation)", "proxy", "gold", "gold win rate", "length", "",
    ]  # fmt: skip
    title = "Stopping" if len(tracks) == 1 else "Stopping (first seed)"
    return Section(title, texts, table=Table(head, rows))


def _reward_model(rm: Mapping[str, Any]) -> Section:
    bars = [
        ("gold (ceiling)", rm["ceiling"], None, charts.GOLD),
        ("reward model", rm["accuracy"], (rm["accuracy_low"], rm["accuracy_high"]), charts.PROXY),
        ("length only", rm["length_only"], None, charts.MUTED),
    ]
    texts = [
        f"Fitted on {rm['train_pairs']:,} comparisons, all pairs of {rm['train_rankings']:,} rankings, and measured on "
        f"{rm['n']:,} others whose prompts it never saw. The "
        "ceiling is what the gold reward itself reaches on the same noisy labels: annotators err and disagree, so "
        f"nothing can do much better. Length only is the rule that the {rm['length_rule']} reply wins. The correlation "
        f"of score difference with length difference is {rm['length_bias']:+.2f} for the reward model; for gold it is "
        f"{rm['gold_length_bias']:+.2f}. What lies between the two is the bias that optimisation will find.",
    ]
    curve = rm["calibration"]
    return Section(
        "The reward model",
        texts,
        [
            charts.accuracies(bars),
            charts.calibration(
                [b["confidence"] for b in curve], [b["accuracy"] for b in curve], [b["n"] for b in curve], rm["ece"]
            ),
        ],
    )


def _samples(shown: Sequence[tuple[str, Mapping[str, str]]], marks: Callable[[int, str], str]) -> Section:
    return Section(
        "Before and after",
        [
            "The first test prompts, not chosen ones; one reply each at temperature 1. GRPO and DPO at their stopping "
            "points, and GRPO at the end of its run, where the proxy is highest."
        ],
        samples=[
            Shown(prompt, [Reply(who, text, marks(i, text)) for who, text in replies.items()])
            for i, (prompt, replies) in enumerate(shown)
        ],
    )
