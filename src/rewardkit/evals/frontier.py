"""Reward against KL: frontiers that compare methods, curves that show where optimisation stopped being worth it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rewardkit.registry import entry


@entry(
    "evals:kl_reward_frontier",
    tags=("kl", "frontier"),
    source="Rafailov et al. 2023, arXiv:2305.18290, figure 2; Gao et al. 2022, arXiv:2210.10760",
)
def kl_reward_frontier(kl: Sequence[float], reward: Sequence[float]) -> list[tuple[float, float]]:
    """The points that no other point beats with less KL and at least as much reward, by rising KL.

    Args:
        kl: nats an output, to the policy that the run started from; one point a run or checkpoint. reward: of each.

    Raises:
        ValueError: for lists of different length or without a point.

    >>> kl_reward_frontier([1.0, 2.0, 0.5, 3.0], [1.0, 0.8, 0.4, 1.2])
    [(0.5, 0.4), (1.0, 1.0), (3.0, 1.2)]
    """
    if len(kl) != len(reward) or not len(kl):
        raise ValueError(f"a frontier needs as many rewards as KLs, at least one: {len(reward)} and {len(kl)}")
    best = -np.inf
    frontier = []
    for k, r in sorted(zip(kl, reward, strict=True), key=lambda p: (p[0], -p[1])):
        if r > best:
            frontier.append((float(k), float(r)))
            best = r
    return frontier


def reward_at_kl(kl: Sequence[float], reward: Sequence[float], at: float, *, start: float) -> float:
    """The frontier's reward at a KL, so that methods are compared at equal KL.

    Between two points of the frontier a mixture of the two policies reaches the straight line in reward (and no more
    KL), so the line is what is read; from KL 0, where the reward is ``start``, to the first point too.

    Args:
        kl, reward: of one method's runs. at: nats, not beyond the largest KL. start: reward of the policy at KL 0.

    Raises:
        ValueError: for a KL that no run reached.

    >>> reward_at_kl([1.0, 2.0], [1.0, 2.0], 1.5, start=0.0)
    1.5
    """
    if at > max(0.0, *kl):
        raise ValueError(f"no run reached KL {at}; the largest is {max(kl):.3g}")
    points = kl_reward_frontier([0.0, *kl], [start, *reward])
    return float(np.interp(at, [k for k, _ in points], [r for _, r in points]))


@dataclass(frozen=True)
class Overoptimization:
    """What became of the gold reward while the proxy was optimised.

    Args:
        gold_start, gold_peak, gold_end: at the first point, at the peak, at the last. kl_at_peak: where the peak stood.
        peaked: whether gold fell after its peak by more than ``tolerance``; otherwise there is no peak within the run.
        drop: ``gold_peak - gold_end``. proxy_gain: of the whole run. proxy_after_peak: what the proxy still gained
            after the peak, while gold fell.
    """

    gold_start: float
    gold_peak: float
    gold_end: float
    kl_at_peak: float
    peaked: bool
    drop: float
    proxy_gain: float
    proxy_after_peak: float


@entry(
    "evals:overoptimization_curve",
    tags=("kl", "gold"),
    source="Stiennon et al. 2020, arXiv:2009.01325, section 4.3; Gao et al. 2022, arXiv:2210.10760",
)
def overoptimization_curve(
    kl: Sequence[float],
    proxy: Sequence[float],
    gold: Sequence[float],
    *,
    tolerance: float = 0.0,
    located_by: Sequence[float] | None = None,
) -> Overoptimization:
    """Where the gold reward peaked along a run, and what the proxy did after that.

    Args:
        kl: nats to the start, in order of the run (or of ``n``, or of falling beta). proxy, gold: of the same points.
        tolerance: a fall within this is noise, not a peak; give the standard error of a difference.
        located_by: gold of the same points on other draws: the peak is the largest of these. The largest of many noisy
            values of ``gold`` itself owes part of its height to luck, so that a gold reward that stays flat would
            seem to rise and fall.

    Raises:
        ValueError: for lists of different length or fewer than two points.

    >>> found = overoptimization_curve([0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 0.8, 0.2])
    >>> found.kl_at_peak, found.peaked, found.proxy_after_peak
    (1.0, True, 2.0)
    """
    guide = gold if located_by is None else located_by
    if not len(kl) == len(proxy) == len(gold) == len(guide) or len(kl) < 2:
        sizes = ", ".join(str(len(x)) for x in (kl, proxy, gold, guide))
        raise ValueError(f"a curve needs equally many points, two at least: {sizes}")
    top = int(np.argmax(guide))
    drop = float(gold[top] - gold[-1])
    return Overoptimization(
        gold_start=float(gold[0]),
        gold_peak=float(gold[top]),
        gold_end=float(gold[-1]),
        kl_at_peak=float(kl[top]),
        peaked=drop > tolerance,
        drop=drop,
        proxy_gain=float(proxy[-1] - proxy[0]),
        proxy_after_peak=float(proxy[-1] - proxy[top]),
    )
