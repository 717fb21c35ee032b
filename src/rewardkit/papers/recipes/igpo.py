"""IGPO: turn rewards from how much likelier each turn makes the expected answer, in a search game.

On world ``agents``, questions of three and four hops over a small knowledge base, 40 turns of 8 questions with 4 games
each, all arms the same. The reward of a turn is the gain in the policy's own likelihood of the answer, of the last one
the token F1 of what it says; turns are compared within their group and summed to the end without discount, and the
loss is clipped. Against the outcome alone, and against the same gains permuted over a game's turns (a control: if
their place did not matter, it would do as well). Measured are the share of groups without any advantage, accuracy over
the run and on held-out questions, and the telescoping identity. The learning rate is chosen by annotators' liking in
training. Left out: Monte-Carlo turn values, open-domain search, tags in the answer, and the released code's other
normalisation. About four minutes on one core.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from rewardkit.credit.group import group_relative
from rewardkit.credit.turns import turn_discounted_group
from rewardkit.loops.online import online
from rewardkit.loops.prompts import PromptSet
from rewardkit.objectives.policy import clipped
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.rewards.base import RewardBase
from rewardkit.rewards.learned.information_gain import InformationGain
from rewardkit.rewards.rules.answers import TokenF1
from rewardkit.training.learner import Learner
from rewardkit.types import Rollout, Scores
from rewardkit.worlds.agents import Agents

WORLD, STEPS = Agents((3, 4)), 40
Figures = dict[str, Any]


class Permuted(RewardBase):
    """A reward's turn scores in a random order over the turns that have one."""

    name = "permuted"

    def __init__(self, reward: RewardBase) -> None:
        self.reward = reward

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        scores = self.reward(rollout, ctx)
        chance = torch.Generator().manual_seed(int((ctx or {}).get("step", 0)))
        turns = scores.dense["turn"].clone()
        for row, last in enumerate(rollout.segments["turn"].amax(1).tolist()):
            turns[row, :last] = turns[row, torch.randperm(last, generator=chance)]
        return replace(scores, dense={"turn": turns})


def train(run: Run, gains: str | None) -> Figures:
    """One arm: ``gains`` as they are, ``permuted`` or none."""
    policy = WORLD.base_policy(steps=run.size(200, 1))
    gain = InformationGain(policy)
    reward: RewardBase = TokenF1(failed=-1.0)
    credit: Any = group_relative
    if gains is not None:
        reward = reward + (gain if gains == "in place" else Permuted(gain))
        credit = turn_discounted_group
    prompts = PromptSet(WORLD.prompts(run.size(96, 2), 50 + run.seed), seed=run.seed)
    right, silent, liked, gaps = [], [], [], []
    for turn in online(
        Learner(policy, lr=float(run.point.get("lr", 1e-3))), prompts, reward, credit, clipped, reference=None,
        steps=run.size(STEPS, 1), batch=run.size(8, 1), n=run.size(4, 2), inner=2, env=WORLD.env,
        sampling=WORLD.sampling, seed=run.seed,
    ):  # fmt: skip
        right.append(float(WORLD.gold(turn.rollout).outcome.mean()))  # type: ignore[union-attr]
        liked.append(float(np.mean([WORLD.liking(s) for s in turn.rollout.samples])))
        silent.append(_without_advantage(turn.rollout))
        if gains == "in place":
            gaps.append(telescoping(turn.scores.parts["information_gain"]))
    late = max(1, len(right) // 5)
    return {
        **WORLD.measure(policy, n=run.size(8, 1), prompts=run.size(40, 2)),
        "speed": float(np.mean(right)),
        "silent": float(np.mean(silent)),
        "liked": float(np.mean(liked[-late:])),
        "telescoping": max(gaps, default=0.0),
        "share of right answers": right,
    }


def telescoping(scores: Scores) -> float:
    """Largest distance between the sum of a row's gains and the last likelihood less the first."""
    apart = scores.before["last"].outcome - scores.before["first"].outcome  # type: ignore[operator]
    return float((scores.dense["turn"].sum(1).float() - apart).abs().max())


def _without_advantage(rollout: Rollout) -> float:
    """The share of groups in which no token has an advantage."""
    loud = (rollout["advantages"].abs() > 1e-6).any(1)
    return float(np.mean([not bool(loud[rollout.group == g].any()) for g in torch.unique(rollout.group)]))


RECIPE = Recipe(
    slug="igpo",
    arms={
        "igpo": Arm(partial(train, gains="in place")),
        "grpo": Arm(partial(train, gains=None)),
        "igpo, permuted": Arm(partial(train, gains="permuted")),
    },
    expectations=[
        Expect("a game's gains telescope, to 1e-5", "telescoping", "igpo", high=1e-5, every=True),
        Expect("fewer groups are without any advantage", "silent", "igpo", "grpo", high=0),
        Expect("almost no group is without any advantage", "silent", "igpo", high=0.1),
        Expect("accuracy over the run is higher than with outcomes alone", "speed", "igpo", "grpo", low=0),
        Expect("held-out accuracy is higher than with outcomes alone", "gold", "igpo", "grpo", low=0),
        Expect("permuting the gains over turns costs accuracy", "gold", "igpo", "igpo, permuted", low=0),
    ],
    grid=({"lr": 3e-4}, {"lr": 1e-3}),
    tune="liked",
    scale="an 85,000-weight model, three and four hops over 48 facts, 1,280 games an arm",
)
