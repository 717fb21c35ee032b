"""From the repetitions of both sides to one finding."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks.speed.arithmetic import operations, tokens
from benchmarks.speed.data import measured
from benchmarks.speed.settings import Setting

TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}
"""How far the sides' numbers may be apart, as a fraction of the largest of them."""


def spread(ours: Sequence[float], peer: Sequence[float], *, memory: bool = False) -> dict[str, float]:
    """The median of the repetitions' ratios with the lowest and the highest, and each side's median.

    Args:
        ours, peer: one number a repetition, in order. memory: ratios are ours / peer; else, of time, peer / ours.

    >>> spread([1.0, 2.0, 1.0], [3.0, 4.0, 5.0])
    {'ratio': 3.0, 'low': 2.0, 'high': 5.0, 'ours': 1.0, 'peer': 4.0}
    """
    ratios = [a / b if memory else b / a for a, b in zip(ours, peer, strict=True)]
    return {
        "ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios),
        "ours": statistics.median(ours), "peer": statistics.median(peer),
    }  # fmt: skip


def gap(ours: Sequence[float], peer: Sequence[float]) -> float:
    """The largest difference, as a fraction of the largest number; infinite where a number is not finite.

    Raises:
        ValueError: if the sides do not have the same number of numbers, at least one.

    >>> gap([1.0, 2.0], [1.0, 1.9])
    0.05
    """
    if len(ours) != len(peer) or not peer:
        raise ValueError(f"{len(ours)} numbers of ours cannot be compared with {len(peer)} of the peer's")
    if not all(map(math.isfinite, [*ours, *peer])):
        return math.inf
    largest = max(map(abs, [*ours, *peer]))
    return round(max(abs(a - b) for a, b in zip(ours, peer, strict=True)) / largest, 9) if largest else 0.0


def finding(setting: Setting, ours: Sequence[dict[str, Any]], peer: Sequence[dict[str, Any]], peak: float) -> dict:
    """What is written of one comparison.

    Args:
        ours, peer: what :mod:`benchmarks.speed.side` reported, one a repetition. peak: operations a second.
    """
    sides = {"ours": ours, "peer": peer}
    data = measured(setting)
    work, count = operations(setting, data), tokens(data)
    unit = "bytes" if setting.memory else "seconds"
    seen = {name: [r["peak_bytes"] if setting.memory else r["seconds"] for r in runs] for name, runs in sides.items()}
    seconds = {name: statistics.median(r["seconds"] for r in runs) for name, runs in sides.items()}
    apart = max(gap(a["evidence"] or b["expected"], b["evidence"]) for a, b in zip(ours, peer, strict=True))
    found: dict[str, Any] = spread(seen["ours"], seen["peer"], memory=setting.memory)
    found |= {"unit": unit, "ratio_of": "ours / peer" if setting.memory else "peer / ours"}
    found |= {"tokens": count, "operations": work}
    for name, runs in sides.items():
        found[f"{name}_tokens_per_second"] = count / seconds[name]
        # Memory of the first repetition: later ones stand in the same process, unless each has its own.
        found[f"{name}_peak_bytes"] = statistics.median(seen[name]) if setting.memory else runs[0]["peak_bytes"]
        found[f"{name}_share_of_peak"] = work / seconds[name] / peak
    return found | {"agrees": apart <= TOLERANCE[setting.dtype], "gap": apart, "each": seen}


def table(found: dict[str, dict[str, Any]]) -> str:
    """The findings, one a line."""
    head = f"{'':14}{'ratio':>7} {'(low - high)':>15}{'ours':>11}{'peer':>11}"
    lines = [head + f"{'tokens/s':>17}{'peak GiB':>13}{'of peak':>12}  agrees"]
    for name, f in found.items():
        scale, suffix = (2**30, "GiB") if f["unit"] == "bytes" else (1, "s")
        sides = "".join(f"{f[s] / scale:7.2f} {suffix:>3}" for s in ("ours", "peer"))
        rate = "/".join(f"{f[f'{s}_tokens_per_second']:.0f}" for s in ("ours", "peer"))
        held = "/".join(f"{f[f'{s}_peak_bytes'] / 2**30:.2f}" for s in ("ours", "peer"))
        share = "/".join(f"{f[f'{s}_share_of_peak']:.0%}" for s in ("ours", "peer"))
        span = f"({f['low']:.2f} - {f['high']:.2f})"
        lines.append(f"{name:14}{f['ratio']:7.2f} {span:>15}{sides}{rate:>17}{held:>13}{share:>12}  {f['agrees']}")
    return "\n".join(lines)
