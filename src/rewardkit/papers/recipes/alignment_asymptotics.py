"""Best-of-n against KL-regularised RL, exactly.

A source of independent letters over a small alphabet, a linear reward, sequences of 2 to 14 letters: the optimum of a
KL budget and the exact distribution of best-of-n are computed by enumerating types (letter counts), with no sampling,
at ``n = exp(m * delta)`` and budget ``m * delta``. Expected: the gap in reward a letter and the KL between the two a
letter both shrink with the length; the KL of best-of-n stays under ``log n - (n - 1) / n``; no perturbation of the
optimum at equal KL has more reward; the optimum has independent letters again. On short sequences the same is done
through the table policy's own enumeration, which must agree. Left out: the rate function of the large deviation
principle and the Renyi form of the cumulants, and sources with memory, which the paper does not treat either. A seed
is a random source and reward.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from rewardkit.evals.closed_forms import best_of_n_distribution, closed_form_checks, kl, tilted_to
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.policies.table import TablePolicy
from rewardkit.worlds.tables import types

DELTAS = (0.15, 0.3)
"""Nats a letter. The budget must stay below what always writing the best letter would cost."""


def exact(run: Run) -> dict[str, object]:
    """All figures of one source; worst cases over the deltas."""
    generator = torch.Generator().manual_seed(run.seed)
    letters = 3 + run.seed % 3
    log_p = (0.5 * torch.randn(letters, generator=generator, dtype=torch.float64)).log_softmax(-1)
    reward = torch.randn(letters, generator=generator, dtype=torch.float64)
    lengths = range(2, run.size(15, 6))
    gaps: dict[float, list[float]] = {d: [] for d in DELTAS}
    between: dict[float, list[float]] = {d: [] for d in DELTAS}
    over_bound = memory = better = -math.inf
    for delta in DELTAS:
        for m in lengths:
            counts, log_types = types(log_p, m)
            rewards = counts @ reward
            found = closed_form_checks(log_types, rewards, math.exp(m * delta))
            gaps[delta].append((found["reward_optimal"] - found["reward_best_of_n"]) / m)
            between[delta].append(found["kl_between"] / m)
            over_bound = max(over_bound, found["kl_best_of_n"] - found["kl_bound"])
        optimum = tilted_to(log_types, rewards, m * delta)
        memory = max(memory, _memory(log_p, reward, m, m * delta, optimum))
        better = max(better, _perturbed(log_types, rewards, optimum, m * delta, generator, run.size(60, 5)))
    slopes = [_slope(lengths, v) for v in gaps.values()]
    slopes_kl = [_slope(lengths, v) for v in between.values()]
    return {
        "slope_of_gap": max(slopes),
        "slope_of_kl": max(slopes_kl),
        "kl_over_bound": over_bound,
        "gain_of_perturbation": better,
        "distance_from_independent": memory,
        "types_against_sequences": _sequences(log_p, reward, 3, DELTAS[0]),
        "lengths": list(lengths),
        **{f"gap at {d}": v for d, v in gaps.items()},
        **{f"kl at {d}": v for d, v in between.items()},
    }


def _slope(lengths: range, values: list[float]) -> float:
    """Slope of the values over the length, both in logarithms."""
    return float(np.polyfit(np.log(list(lengths)), np.log(np.maximum(np.abs(values), 1e-300)), 1)[0])


def _memory(log_p: Tensor, reward: Tensor, m: int, budget: float, optimum: Tensor) -> float:
    """KL from the optimum to sequences of independent letters, each tilted within ``budget / m``."""
    letter = tilted_to(log_p, reward, budget / m)
    return float(kl(optimum, types(letter, m)[1]))


def _perturbed(
    log_p: Tensor, reward: Tensor, optimum: Tensor, budget: float, generator: torch.Generator, tries: int
) -> float:
    """The largest gain in reward of a random perturbation of the optimum with the same KL to the source."""
    best = float((optimum.exp() * reward).sum())
    gain = -math.inf
    for _ in range(tries):
        noise = torch.randn(len(log_p), generator=generator, dtype=torch.float64)
        direction = optimum - log_p + 0.3 * noise
        low, high = 0.0, 1.0
        while float(kl((log_p + high * direction).log_softmax(-1), log_p)) < budget and high < 1e3:
            high *= 2
        for _ in range(40):
            middle = (low + high) / 2
            if float(kl((log_p + middle * direction).log_softmax(-1), log_p)) < budget:
                low = middle
            else:
                high = middle
        gain = max(gain, float(((log_p + low * direction).softmax(-1) * reward).sum()) - best)
    return gain


def _sequences(log_p: Tensor, reward: Tensor, m: int, delta: float) -> float:
    """Largest difference in best-of-n's reward and KL between types and the table policy's listed sequences."""
    letters = len(log_p)
    prefixes = sum(letters**t for t in range(m))
    policy = TablePolicy(["source"], list(range(letters)), m, logits=log_p.expand(1, prefixes, letters).clone())
    outputs, p = policy.enumerate("source")
    log_q = p.detach().log()
    rewards = torch.stack([reward[list(s.output)].sum() for s in outputs]).round(decimals=9)
    counts, log_types = types(log_p, m)
    n = math.exp(m * delta)
    whole = best_of_n_distribution(log_q, rewards, n)
    small = best_of_n_distribution(log_types, (counts @ reward).round(decimals=9), n)
    gap_reward = float((whole.exp() * rewards).sum() - (small.exp() * (counts @ reward)).sum())
    return max(abs(gap_reward), abs(float(kl(whole, log_q) - kl(small, log_types))))


RECIPE = Recipe(
    slug="alignment_asymptotics",
    arms={"exact": Arm(exact, tuned=False)},
    expectations=[
        Expect(
            "the reward gap a letter falls with the length (log-log slope)", "slope_of_gap", "exact", high=0, every=True
        ),
        Expect(
            "KL of best-of-n to the optimum a letter falls with the length", "slope_of_kl", "exact", high=0, every=True
        ),
        Expect("KL of best-of-n is at most log n - (n-1)/n", "kl_over_bound", "exact", high=1e-9, every=True),
        Expect("no perturbation at equal KL has more reward", "gain_of_perturbation", "exact", high=1e-6, every=True),
        Expect(
            "the optimum has independent letters (KL to them)",
            "distance_from_independent",
            "exact",
            high=1e-6,
            every=True,
        ),
        Expect("types and listed sequences agree", "types_against_sequences", "exact", high=1e-6, every=True),
    ],
    seeds=range(6),
    scale="alphabets of 3 to 5 letters, up to 14 letters, six random sources",
)
