"""ONPO: optimistic mirror descent towards the Nash policy of a preference game.

On world ``tables``: random intransitive preference games, rock-paper-scissors and transitive ones. Exactly, with no
sampling: the duality gap of the average policy at horizons of 32 to 2,048 rounds, optimistic at a constant rate, plain
mirror descent at its own rate ``c / sqrt(T)``, and the trap, the last payoff for both updates, which is plain mirror
descent at a constant rate. Sampled: a table policy through ``self_play`` and the squared regression of log-ratios,
optimistic and plain with as many queries at each of three rates, then a duel between the two averages. Left out:
language models, the reward model that ranks several replies a prompt, and regularisation towards the reference.
"""

from __future__ import annotations

import itertools
import math
from functools import partial

import numpy as np
import torch
from torch import Tensor

from rewardkit.evals.games import duality_gap, mirror_descent
from rewardkit.loops.self_play import self_play
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.training.learner import Learner
from rewardkit.worlds.tables.games import Games

RATES = (0.5, 1.0, 2.0)
"""Nats a unit of win rate in the sampled arm, for both methods alike."""


def _averages(world: Games, rate: float, marks: list[int], *, optimistic: bool) -> tuple[dict[int, Tensor], Tensor]:
    """The average policy ``[X, V]`` at each mark, and the last one that was played."""
    total, found = torch.zeros_like(world.log_reference), {}
    played = mirror_descent(world.preference, world.log_reference, rate, optimistic=optimistic)
    for step, log_p in enumerate(itertools.islice(played, marks[-1]), 1):
        total += log_p.exp()
        if step in marks:
            found[step] = total / step
    return found, log_p.exp()


def exact(run: Run, *, optimistic: bool, shrinking: bool) -> dict[str, object]:
    """Gaps without sampling; ``shrinking`` runs every horizon at its own rate ``c / sqrt(T)``."""
    marks = [2**k for k in range(5, run.size(12, 7))]
    c = run.point.get("c", 1.0)

    def gaps(world: Games) -> tuple[Tensor, float]:
        """``[marks, X]``, and the gap of the last policy played."""
        if shrinking:
            each = [_averages(world, c / math.sqrt(t), [t], optimistic=optimistic) for t in marks]
            averages, last = [found[t] for t, (found, _) in zip(marks, each, strict=True)], each[-1][1]
        else:
            found, last = _averages(world, c, marks, optimistic=optimistic)
            averages = [found[t] for t in marks]
        closed = torch.stack([duality_gap(world.preference, p) for p in averages]).clamp(min=1e-12)
        return closed, float(duality_gap(world.preference, last).mean())

    random, _ = gaps(Games(run.size(20, 2), 6, seed=run.seed))
    cycle, last = gaps(Games(1, 3, kind="cycle", seed=run.seed))
    ordered, _ = gaps(Games(run.size(20, 2), 6, kind="transitive", seed=run.seed))
    means = random.log().mean(1)
    return {
        "slope": float(np.polyfit(np.log(marks), means.numpy(), 1)[0]),
        "slope, rock-paper-scissors": float(np.polyfit(np.log(marks), cycle.log().mean(1).numpy(), 1)[0]),
        "gap of the last policy, rock-paper-scissors": last,
        "gap, transitive": float(ordered[-1].mean()),
        "closeness": -float(means.mean()),
        "horizons": marks,
        "gap": means.exp().tolist(),
    }


def sampled(run: Run) -> dict[str, float]:
    """Both methods from judged pairs of their own actions, at the same rates; figures are means over the rates."""
    world = Games(4, 6, seed=run.seed)
    duels, gaps = [], {True: 0.0, False: 0.0}
    for rate in RATES[: run.size(len(RATES), 1)]:
        average = {o: _played(run, world, rate, optimistic=o) for o in (True, False)}
        duels.append(world.duel(average[True].log(), average[False].log()))
        for o, p in average.items():
            gaps[o] += float(duality_gap(world.preference, p).mean())
    return {"duel": float(np.mean(duels)), "gap, onpo": gaps[True] / len(duels), "gap, inpo": gaps[False] / len(duels)}


def _played(run: Run, world: Games, rate: float, *, optimistic: bool) -> Tensor:
    """The average ``[X, V]`` of the policies that a run of self-play played."""
    policy, rounds = world.policy(), run.size(30, 1)
    total = world.log_probs(policy).exp()
    each, first = run.size(50, 4), run.seed * 1000
    for found in self_play(
        Learner(policy, lr=0.1), lambda now, number: world.pairs(now, each, seed=first + number), rate=rate,
        rounds=rounds, optimistic=optimistic, epochs=run.size(15, 1), batch=1000, seed=run.seed,
    ):  # fmt: skip
        total += world.log_probs(policy).exp() if found.round < rounds else 0
    return total / rounds


RECIPE = Recipe(
    slug="onpo",
    arms={
        "optimistic": Arm(partial(exact, optimistic=True, shrinking=False)),
        "plain": Arm(partial(exact, optimistic=False, shrinking=True)),
        "last payoff twice": Arm(partial(exact, optimistic=False, shrinking=False)),
        "sampled": Arm(sampled, tuned=False),
    },
    expectations=[
        Expect("the gap of optimistic self-play falls as 1/T", "slope", "optimistic", low=-1.3, high=-0.8),
        Expect("that of plain self-play as 1/sqrt(T)", "slope", "plain", low=-0.75, high=-0.25),
        Expect("optimistic falls faster than plain", "slope", "optimistic", "plain", high=-0.2),
        Expect("and so on rock-paper-scissors", "slope, rock-paper-scissors", "optimistic", "plain", high=-0.2),
        Expect("plain self-play's last policy cycles", "gap of the last policy, rock-paper-scissors", "plain", low=0.3),
        Expect("optimistic's settles", "gap of the last policy, rock-paper-scissors", "optimistic", high=0.1),
        Expect("the last payoff for both updates stalls", "slope", "last payoff twice", low=-0.3),
        Expect("on transitive games there is no difference", "gap, transitive", "optimistic", "plain", -0.02, 0.02),
        Expect("the sampled method wins the duel at equal queries", "duel", "sampled", low=0.5),
        Expect("and is nearer to Nash", "gap, onpo", "sampled", "sampled", high=0, over_figure="gap, inpo"),
    ],
    grid=tuple({"c": c} for c in (0.25, 0.5, 1.0, 2.0, 4.0)),
    tune="closeness",
    seeds=range(5),
    scale="tables of 3 to 6 actions; 20 random games a seed, 2,048 rounds exactly; sampled, 30 rounds of 200 pairs",
)
