"""PS-GRPO: answers are rewarded for agreeing with those to paraphrases of the question, without any reference.

On world ``kb_qa``: a reader of 60,000 weights, questions in four wordings, each with documents of its own from a
noisy retriever; 40 turns on 12 facts with 4 answers a wording. The exact reward compares an answer with all to
the other wordings; the approximate one with one answer each to two of them. Controls: similarity within the answers to
one wording, which rewards low entropy only; and PS-GRPO without the KL, which may end with one answer to everything.
The learning rate is chosen by the reward in training. Left out: BLEU and judges as similarities (answers are single
digits), multi-hop and long answers, retrieval with a real index, and the accuracy term.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from rewardkit.credit.group import group_relative
from rewardkit.loops.online import online
from rewardkit.loops.prompts import PromptSet
from rewardkit.objectives.policy import clipped
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.rewards.rules.similarity import GroupSimilarity
from rewardkit.training.learner import Learner
from rewardkit.worlds.kb_qa import WORDINGS, KnowledgeQA

WORLD, TURNS, FACTS, N, KL = KnowledgeQA(), 40, 12, 4, 0.05


def train(run: Run, kl: float = KL, **options: Any) -> dict[str, float]:
    """A reward of similarity; ``options`` say with what each answer is compared."""
    policy = WORLD.base_policy(steps=run.size(600, 2))
    reward = GroupSimilarity(seed=run.seed, **options)
    facts = run.size(FACTS, 1)
    asked = [s for d in range(8) for s in WORLD.questions(2 * facts, 100 * run.seed + d)]
    turns = online(
        Learner(policy, lr=run.point.get("lr", 1e-3)), PromptSet(asked, shuffle=False), reward, group_relative, clipped,
        reference="start", kl=kl, steps=run.size(TURNS, 1), n=N, batch=facts * len(WORDINGS), inner=2,
        sampling=WORLD.sampling, seed=run.seed,
    )  # fmt: skip
    rewards, calls = [], []
    for turn in turns:
        rewards.append(turn.metrics["reward"])
        calls.append(turn.scores.cost.calls)
    return {**figures(run, policy), "reward": float(np.mean(rewards[-5:])), "calls": float(np.mean(calls))}


def figures(run: Run, policy: Any) -> dict[str, float]:
    """On retrievals that nobody trained on."""
    found: Mapping[str, float] = WORLD.measure(policy, n=run.size(4, 1), draws=run.size(3, 1), seed=9_000 + run.seed)
    return dict(found)


def sft(run: Run) -> dict[str, float]:
    """The start."""
    return figures(run, WORLD.base_policy(steps=run.size(600, 2)))


def control(run: Run) -> dict[str, float]:
    """A third of the comparisons that the exact reward makes in a turn."""
    return {"third": FACTS * len(WORDINGS) * N * (len(WORDINGS) - 1) * N / 3}


PS, NEAR = "ps-grpo, exact", "ps-grpo, approximate"

RECIPE = Recipe(
    slug="con_rag_ps_grpo",
    arms={
        PS: Arm(train),
        NEAR: Arm(partial(train, paraphrases=2, outputs=1)),
        "within one wording": Arm(partial(train, own=True)),
        "ps-grpo without KL": Arm(partial(train, kl=0.0)),
        "sft": Arm(sft, tuned=False),
        "exact calls": Arm(control, tuned=False),
    },
    expectations=[
        Expect("PS-GRPO is more consistent end to end than its start", "consistency", PS, "sft", low=0),
        Expect("and right more often", "gold", PS, "sft", low=0),
        Expect("it is more consistent than GRPO on similarity within a wording", "consistency", PS,
               "within one wording", low=0),
        Expect("the approximation is within 2 points of the exact consistency", "consistency", NEAR, PS, low=-0.02,
               high=0.02),
        Expect("with less than a third of the comparisons", "calls", NEAR, "exact calls", high=0, every=True,
               over_figure="third"),
        Expect("with the KL the answers do not become one", "distinct", PS, low=0.5),
        Expect("without the KL the answers are fewer", "distinct", "ps-grpo without KL", PS, high=0),
    ],
    grid=({"lr": 3e-4}, {"lr": 1e-3}, {"lr": 3e-3}),
    tune="reward",
    scale="a 60,000-weight reader, 24 facts, single-digit answers, 40 turns",
)  # fmt: skip
