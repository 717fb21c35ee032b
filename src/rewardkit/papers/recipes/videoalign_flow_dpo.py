"""VideoAlign: a reward model that knows ties, and three ways to use preferences on a rectified flow.

On world ``gaussians`` with a flow policy: 1,500 comparisons in which annotators may say "equal". The reward model by
Bradley-Terry with ties is held against one that drops them, by three-way accuracy on fresh comparisons, each with its
best threshold for calling a tie. Flow-DPO with a constant beta, with the derived ``beta (1 - t)^2``, Flow-RWR (``sft``
weighted by ``exp(reward)``) and ``sft`` on winners are trained for 100 steps on the same points, noise-conditioned
reward guidance (NRG) runs at six weights; gold is read off each frontier at the same 2-Wasserstein distance from the
base. The learning rate is chosen by annotators' preference. Left out: video, the vision-language reward model and its
dimensions, a reward of clean outputs as a guide.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch

from rewardkit.data.rows import attach, comparison_rows
from rewardkit.evals.frontier import reward_at_kl
from rewardkit.guidance.noisy_reward import noisy_reward_guidance
from rewardkit.needs import Column
from rewardkit.objectives.imitation import sft
from rewardkit.objectives.preference import dpo
from rewardkit.objectives.reward import bradley_terry, bradley_terry_ties
from rewardkit.papers.gaussians import (
    WORLD,
    Score,
    base,
    gold_at,
    made,
    pairs_with_ties,
    points,
    preferences,
    preferred,
    reward_model,
    start_points,
    transport,
)
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.policies.diffusion import Denoise
from rewardkit.rewards.learned.noisy import NoisyReward
from rewardkit.training.fit import fit
from rewardkit.training.learner import Learner
from rewardkit.types import Judgement, Rollout, Sample

HOW, STEPS, LOOKS, APART = Denoise(20, eta=0.0), 100, 20, 0.5
"""Sampler; updates; looks on the way; the distance from the base at which methods are compared."""


def judged(run: Run, offset: int = 0) -> list[Judgement]:
    """Comparisons with ties."""
    return pairs_with_ties(base(run, "flow"), run.size(1500, 16), 100 * offset + run.seed, how=HOW)


def _winners(found: Iterable[Judgement]) -> list[Sample]:
    return [j.items[0 if j.rank == (0, 1) else 1] for j in found if j.rank != (0, 0)]


class Frontier:
    """Gold against the distance from the base, on the way of one policy or at several weights of one guide."""

    def __init__(self, run: Run) -> None:
        self.run, self.far, self.gold = run, [], []  # type: ignore[var-annotated]
        self.start = start_points(run.seed, run.smoke, "flow", HOW)

    def add(self, policy: Any) -> None:
        """A point of the frontier; noise is shared with the base, so that a policy that did not move is at 0."""
        found = points(policy, self.start.shape[1], 40_000 + self.run.seed, HOW)
        self.far.append(transport(found, self.start))
        self.gold.append(gold_at(found))

    def figures(self, policy: Any) -> dict[str, Any]:
        """Gold at the distance, or at the largest that was reached; and what a person who tunes would see."""
        own, at = base(self.run, "flow"), min(APART, max(0.0, *self.far))
        return {
            "gold": reward_at_kl(self.far, self.gold, at, start=gold_at(self.start)),
            "gold at the end": self.gold[-1],
            "distance at the end": self.far[-1],
            "preferred": preferred(policy, own, self.run.seed, n=self.run.size(100, 2), how=HOW),
            "distances": self.far,
            "golds": self.gold,
        }


def _looked(run: Run, policy: Any, steps: Iterable[Any]) -> dict[str, Any]:
    frontier, every = Frontier(run), run.size(STEPS // LOOKS, 2)
    for step in steps:
        if step.step % every == 0 or step.step == step.of:
            frontier.add(policy)
    return frontier.figures(policy)


def flow_dpo(run: Run, *, derived: bool = False) -> dict[str, Any]:
    """Flow-DPO on what is not a tie; ``derived`` weighs each time by ``(1 - t)^2``."""
    policy, decided = base(run, "flow"), [j for j in judged(run) if j.rank != (0, 0)]

    def clearness(rollout: Rollout) -> Rollout:
        return rollout.with_tensors(beta=(1 - rollout.inputs["times"]).square())

    objective = partial(dpo, over="position", beta=Column("beta", of="better") if derived else 1.0)
    steps = preferences(
        policy, decided, objective, run.seed, lr=run.point.get("lr", 1e-3), batch=32, extra=clearness,
        epochs=run.size(STEPS, 2) / -(-len(decided) // 32),
    )  # fmt: skip
    return _looked(run, policy, steps)


def imitation(run: Run, *, weighted: bool) -> dict[str, Any]:
    """``sft`` on the winners, or on all points by the exponential of the learned reward."""
    policy, found = base(run, "flow"), judged(run)
    samples = [s for j in found for s in j.items] if weighted else _winners(found)
    weight = torch.ones(len(samples))
    if weighted:
        reward = reward_model(found, run.seed, bradley_terry_ties, epochs=run.size(6.0, 0.2))
        scores = reward(reward.encode(samples)).outcome
        weight = torch.softmax(scores if scores is not None else weight, 0) * len(samples)

    def encode(numbers: list[int]) -> Rollout:
        return policy.encode([samples[i] for i in numbers]).with_tensors(weight=weight[numbers])

    steps = fit(
        Learner(policy, lr=run.point.get("lr", 1e-3)), range(len(samples)), partial(sft, weight=Column("weight")),
        encode=encode, epochs=run.size(STEPS, 2) / -(-len(samples) // 64), batch=64, seed=run.seed,
    )  # fmt: skip
    return _looked(run, policy, steps)


def nrg(run: Run) -> dict[str, Any]:
    """Guidance by a reward of noisy states, at six weights; the base's weights stay."""
    policy, found = base(run, "flow"), judged(run)
    net = made(run.seed, lambda: Score(len(WORLD.prompts) + 1))
    reward = NoisyReward(net, policy.process, condition=WORLD.condition, seed=run.seed)

    def encode(units: list[Judgement]) -> Rollout:
        rows = comparison_rows(units)
        return attach(reward.encode(rows.samples, rows.group), rows)

    learner = Learner(reward, lr=2e-3)
    for _ in fit(
        learner, found, bradley_terry_ties, encode=encode, epochs=run.size(20.0, 0.2), batch=64, seed=run.seed
    ):
        pass
    frontier = Frontier(run)
    for weight in (0.05, 0.1, 0.25, 0.5, 1.0, 2.0):
        guided = noisy_reward_guidance(policy, reward.value, weight)
        frontier.add(guided)
    rises = [b - a for a, b in zip(frontier.gold[:-1], frontier.gold[1:], strict=True)]
    return {**frontier.figures(guided), "least rise": min(rises)}


def ties(run: Run) -> dict[str, Any]:
    """Three-way accuracy of both reward models on fresh comparisons, each with its best threshold."""
    train, fresh = judged(run), judged(run, offset=7)
    decided, epochs = [j for j in train if j.rank != (0, 0)], run.size(6.0, 0.2)
    knows = reward_model(train, run.seed, bradley_terry_ties, epochs=epochs)
    drops = reward_model(decided, run.seed, bradley_terry, epochs=epochs * len(train) / len(decided))
    said = torch.tensor([0 if j.rank == (0, 0) else 1 if j.rank == (0, 1) else -1 for j in fresh])
    found = {}
    for name, reward in (("ties", knows), ("dropped", drops)):
        scores = reward(reward.encode([s for j in fresh for s in j.items])).outcome
        if scores is None:
            raise ValueError("a reward model has outcomes")
        gap = scores[0::2] - scores[1::2]
        limits = torch.cat([torch.zeros(1), gap.abs().sort().values])
        found[f"accuracy, {name}"] = max(float((gap.sign() * (gap.abs() > x) == said).float().mean()) for x in limits)
    return found | {"tied": float((said == 0).float().mean()), "preferred": 0.0}


RECIPE = Recipe(
    slug="videoalign_flow_dpo",
    arms={
        "flow-dpo": Arm(flow_dpo),
        "flow-dpo, derived beta": Arm(partial(flow_dpo, derived=True)),
        "flow-rwr": Arm(partial(imitation, weighted=True)),
        "sft": Arm(partial(imitation, weighted=False)),
        "flow-nrg": Arm(nrg, tuned=False),
        "ties": Arm(ties, tuned=False),
    },
    expectations=[
        Expect("Flow-DPO has more gold than SFT, as far from the base", "gold", "flow-dpo", "sft", low=0),
        Expect("Flow-DPO has more gold than Flow-RWR", "gold", "flow-dpo", "flow-rwr", low=0),
        Expect("Flow-RWR has more gold than SFT", "gold", "flow-rwr", "sft", low=0),
        Expect("a constant beta beats the derived one", "gold", "flow-dpo", "flow-dpo, derived beta", low=0),
        Expect("guidance raises gold with its weight, at every step", "least rise", "flow-nrg", low=0),
        Expect(
            "a reward model that knows ties judges better than one that drops them", "accuracy, ties", "ties",
            "ties", low=0, over_figure="accuracy, dropped",
        ),
    ],
    grid=({"lr": 3e-4}, {"lr": 1e-3}),
    tune="preferred",
    seeds=range(3),
    scale="a network of 50,000 weights on points in the plane, 100 steps on 1,500 comparisons",
)  # fmt: skip
