"""Regret instead of partial return as the model of what people prefer, on gridworlds that can be solved exactly.

Random gridworlds with mud, a pit and a goal, half of them with slips. Simulated annotators compare segments of random
steps, by the regret of their actions or by the sum of their rewards. Linear rewards are fitted to 300 comparisons with
``bradley_terry`` under either model; the plan on the learned reward is valued by the true one, 0 a random policy and 1
the best. The control takes values of the random policy instead of the best one. Besides, the counterexample: a
constant added to all rewards, which segments of equal length cannot tell. Values of the best policy are approximated
by generalised policy improvement over a bank of policies of random rewards, as in the paper, to which the plan of the
present estimate is added twice. Discounted by 0.95, so that every value is finite, where the paper's tasks are not.
Left out: people, longer segments, the paper's driving task.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from rewardkit.data.rows import attach, comparison_rows
from rewardkit.objectives.reward import bradley_terry
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.rewards.learned.segments import SegmentReward
from rewardkit.training.fit import fit
from rewardkit.training.learner import Learner
from rewardkit.types import Judgement, Sample
from rewardkit.worlds.tables.grids import GridWorld
from rewardkit.worlds.tables.mdp import greedy

By = Literal["return", "regret"]
Model = Literal["return", "regret", "regret of a random policy"]
PAIRS, LENGTH = 300, 3


def _truth(seed: int) -> Tensor:
    """Random true weights of floor, mud, goal and pit."""
    drawn = np.random.default_rng(seed).uniform(0, 1, 4)
    return torch.tensor([-1.0, -3.0, 5.0, -5.0], dtype=torch.float64) * torch.from_numpy(drawn)


def _bank(world: GridWorld, weights: Sequence[Tensor]) -> dict[str, Tensor]:
    """The best policy of each reward, with its successor features."""
    policies = torch.stack([greedy(world.mdp.optimal(world.features @ w)) for w in weights])
    return {
        "policies": policies,
        "successor": torch.stack([world.mdp.action_values(p, world.features) for p in policies]),
    }


def _annotated(world: GridWorld, truth: Tensor, by: By, n: int, seed: int, *, whole: bool = False) -> list[Judgement]:
    """Noisy comparisons of ``n`` pairs by the exact true regret or return."""
    segments = world.segments(2 * n, LENGTH, seed=seed, whole=whole)
    judge = SegmentReward(world.features, by=by, weight=truth, **_bank(world, [truth]))  # type: ignore[arg-type]
    scores = judge(judge.encode(segments)).outcome
    assert scores is not None
    won = torch.rand(n, generator=torch.Generator().manual_seed(seed)) < torch.sigmoid(scores[:n] - scores[n:])
    return [
        Judgement((a, b), rank=(0, 1) if w else (1, 0))
        for a, b, w in zip(segments[:n], segments[n:], won.tolist(), strict=True)
    ]


def _fitted(run: Run, world: GridWorld, model: Model, judged: list[Judgement], seed: int) -> SegmentReward:
    """Weights from comparisons; under regret in three goes, each with the plans of those before in the bank."""
    chance = torch.Generator().manual_seed(seed)
    bank = list(torch.randn(run.size(20, 2), world.features.shape[-1], generator=chance, dtype=torch.float64))
    weight = torch.zeros_like(bank[0])
    uniform = torch.full_like(world.features[None, ..., 0], 0.25)
    behaviour = {"policies": uniform, "successor": world.mdp.action_values(uniform[0], world.features)[None]}
    for _ in range(3):
        given = behaviour if model == "regret of a random policy" else _bank(world, bank)
        by: By = "return" if model == "return" else "regret"
        reward = SegmentReward(world.features, by=by, weight=weight, **given)  # type: ignore[arg-type]
        rows = comparison_rows(judged)
        data = attach(reward.encode(rows.samples), rows)
        learner = Learner(reward, lr=run.point.get("lr", 0.1))
        for _ in fit(learner, data, bradley_terry, epochs=run.size(40, 1), batch=len(judged), seed=seed):
            pass
        weight = reward.weight.detach().clone()
        bank.append(weight)
    return reward


def _plan(world: GridWorld, table: Tensor, truth: Tensor) -> float:
    """The true return of the plan on a reward, 0 for a random policy and 1 for the best."""
    real = world.features @ truth
    plans = [greedy(world.mdp.optimal(table.detach())), greedy(world.mdp.optimal(real)), torch.full_like(real, 0.25)]
    mine, best, random = (float(world.mdp.performance(p, real)) for p in plans)
    return (mine - random) / (best - random)


def _agreement(reward: SegmentReward, judged: list[Judgement]) -> float:
    """How often the reward's order is the annotator's, a tie counting half."""
    sides: list[list[Sample]] = [[j.items[j.rank.index(place)] for j in judged if j.rank] for place in (0, 1)]
    better, worse = (reward(reward.encode(s)).outcome for s in sides)
    assert better is not None
    assert worse is not None
    return float(((better - worse).sign() + 1).mean() / 2)


def learn(run: Run, *, model: Model) -> dict[str, float]:
    """One model of preference on both annotators' comparisons, and on the counterexample."""
    found: dict[str, list[float]] = {"regret": [], "return": [], "held_out": []}
    for i in range(run.size(4, 1)):
        number = run.seed * 100 + i
        world, truth = GridWorld(5, seed=number, slip=0.2 * (i % 2)), _truth(number)
        for by in ("regret", "return"):
            judged = _annotated(world, truth, by, run.size(PAIRS, 10), 2 * number)
            reward = _fitted(run, world, model, judged, number)
            found[by].append(_plan(world, reward.table, truth))
            found["held_out"].append(
                _agreement(reward, _annotated(world, truth, by, run.size(200, 10), 2 * number + 1))
            )
    means = {k: float(np.mean(v)) for k, v in found.items()}
    shares = {f"near optimal, {k}": float(np.mean([x > 0.9 for x in found[k]])) for k in ("regret", "return")}
    return {"held_out": means["held_out"], **{f"plan, {k}": means[k] for k in ("regret", "return")}, **shares} | _shift(
        run, model
    )


def _shift(run: Run, model: Model) -> dict[str, float]:
    """Fitted to the model's own annotator on segments that are equally long and reach no end: what a step costs beside
    the goal is a constant, which their returns cannot tell."""
    world, truth = GridWorld(5, seed=1000 + run.seed), _truth(run.seed)
    by: By = "return" if model == "return" else "regret"
    judged = _annotated(world, truth, by, run.size(PAIRS, 10), run.seed, whole=True)
    reward = _fitted(run, world, model, judged, run.seed)
    recovered, seen = _plan(world, reward.table, truth), []
    with torch.no_grad():
        probe = reward.encode([s for j in judged for s in j.items])
        for w in (truth, truth + 2.0):
            reward.weight.copy_(w)
            scores = reward.evaluate(probe)["scores"].reshape(-1, 2)
            seen.append(scores[:, 0] - scores[:, 1])
    return {"moved by a shift": float((seen[0] - seen[1]).abs().mean()), "recovered": recovered}


RECIPE = Recipe(
    slug="regret_preference",
    arms={
        "regret": Arm(partial(learn, model="regret")),
        "partial return": Arm(partial(learn, model="return")),
        "regret of a random policy": Arm(partial(learn, model="regret of a random policy")),
    },
    expectations=[
        Expect(
            "under a regret annotator, regret plans near the optimum on more worlds",
            "near optimal, regret",
            "regret",
            "partial return",
            low=0,
        ),
        Expect("its plans are worth more", "plan, regret", "regret", "partial return", low=0),
        Expect("its plans are worth at least 0.9", "plan, regret", "regret", low=0.9),
        Expect("values of a random policy will not do", "plan, regret", "regret", "regret of a random policy", low=0),
        Expect("returns do not see a constant", "moved by a shift", "partial return", high=1e-9, every=True),
        Expect("regrets do", "moved by a shift", "regret", low=0.01, every=True),
        Expect("regret recovers the goal from it", "recovered", "regret", low=0.9),
        Expect("partial return does not", "recovered", "partial return", high=0.5),
    ],
    grid=({"lr": 0.3}, {"lr": 1.0}),
    tune="held_out",
    seeds=range(5),
    scale="5x5 gridworlds with four kinds of cells, 300 comparisons of three steps, simulated annotators",
)
