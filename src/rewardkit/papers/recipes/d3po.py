"""D3PO: preferences over two images, taken at every step of the two stored sampling paths, without a reward model.

On world ``gaussians``: each round the present policy makes two points a prompt, an annotator says which is better (the
sign of the gold difference), and ``dpo(over="position")`` is taken on the paths as they were sampled, against the
weights that the run began with. Baselines with as many points: DDPO with the gold reward itself, and the same
preferences on the last noisy step alone. Controls: a fifth of the labels flipped; final points noised anew as
Diffusion-DPO does; a reference that moves every round. All share one grid of learning rates, tuned by how often a noisy
annotator prefers the result to the start. Left out: images, LoRA, human labels, compressibility and aesthetic scores.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch

from rewardkit.loops.rounds import rounds
from rewardkit.objectives.preference import dpo
from rewardkit.papers.gaussians import HOW, WORLD, base, figures, policy_gradient
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.training.learner import Learner
from rewardkit.types import Rollout

ROUNDS, PAIRS = 30, 8
"""Rounds, and pairs a prompt in each: 64 points a round, 1,920 in all."""


def labelled(run: Run, drawn: Rollout, number: int, flipped: float) -> Rollout:
    """Pairs of neighbouring rows, the better first by gold but for a share of wrong labels."""
    gold = WORLD.gold(drawn).outcome
    if gold is None:
        raise ValueError("gold is an outcome")
    first, second = gold[0::2], gold[1::2]
    chance = torch.Generator().manual_seed(run.seed * 1_000_003 + number)
    better = (first > second) ^ (torch.rand(len(first), generator=chance) < flipped)
    rank = torch.stack([~better, better], 1).long().flatten()
    pair = torch.arange(len(drawn)) // 2
    return replace(drawn, group=pair, family=pair).with_tensors(rank=rank)


def d3po(
    run: Run,
    *,
    flipped: float = 0.0,
    steps: Literal["all", "last", "noised"] = "all",
    reference: Literal["start", "last"] = "start",
) -> dict[str, float]:
    """Rounds of sampling, labelling and preferences; two passes over each round."""
    policy = base(run)

    def collect(now: Any, number: int) -> Rollout:
        seed = run.seed * 7_919 + number
        rows = labelled(
            run, now.sample(WORLD.prompts, 2 * run.size(PAIRS, 1), sampling=HOW, seed=seed), number, flipped
        )
        if steps == "noised":
            again = now.encode(rows.samples)
            return replace(again, group=rows.group, family=rows.group).with_tensors(rank=rows["rank"])
        if steps == "last":
            trained = rows.mask * (torch.arange(rows.mask.shape[1]) == rows.mask.shape[1] - 2)
            return replace(rows, mask=trained)
        return rows

    learner = Learner(policy, lr=run.point.get("lr", 1e-3))
    objective = partial(dpo, beta=0.1, over="position")
    size = run.size(PAIRS * len(WORLD.prompts), 4)
    for _ in rounds(
        learner,
        collect,
        objective,
        reference=reference,
        rounds=run.size(ROUNDS, 1),
        epochs=2,
        batch=size,
        seed=run.seed,
    ):
        pass
    return _kept(run, figures(run, policy))


def ddpo(run: Run) -> dict[str, float]:
    """Policy gradient on gold with as many points and as many passes."""
    policy, n = base(run), run.size(2 * PAIRS, 2)
    turns = policy_gradient(policy, WORLD.gold, run.seed, lr=run.point.get("lr", 1e-3), n=n, steps=run.size(ROUNDS, 1))
    for _ in turns:
        pass
    return _kept(run, figures(run, policy))


def _kept(run: Run, found: dict[str, float]) -> dict[str, float]:
    return {**found, "85% of the gain": 0.85 * found["gain"]}


RECIPE = Recipe(
    slug="d3po",
    arms={
        "d3po": Arm(d3po),
        "ddpo": Arm(ddpo),
        "last step only": Arm(partial(d3po, steps="last")),
        "d3po, 20% flipped": Arm(partial(d3po, flipped=0.2)),
        "noised anew": Arm(partial(d3po, steps="noised")),
        "moving reference": Arm(partial(d3po, reference="last")),
    },
    expectations=[
        Expect("every step of the path teaches more than the last alone", "gold", "d3po", "last step only", low=0),
        Expect(
            "comparisons reach 85% of what the gold reward gains", "gain", "d3po", "ddpo", low=0,
            over_figure="85% of the gain",
        ),
        Expect("with a fifth of the labels wrong it still gains", "gain", "d3po, 20% flipped", low=0),
        Expect("a moving reference lets the policy go further from its start", "kl", "moving reference", "d3po", low=0),
    ],
    grid=({"lr": 3e-4}, {"lr": 1e-3}),
    tune="preferred",
    seeds=range(3),
    scale="a network of 50,000 weights on points in the plane, ten steps, 1,920 points an arm",
)  # fmt: skip
