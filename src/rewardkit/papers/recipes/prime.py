"""PRIME: a process reward that learns from the outcomes of the policy's own rollouts, as they are made.

On world ``arithmetic``, chains of two to four operations, 80 turns of 8 prompts with 8 replies. Two learners start
from the same model: the policy, and an implicit process reward whose log-ratio to that start is fitted to the outcomes
after each turn. Credit goes part by part: leave-one-out for the outcome, the sum from each token on, less the others'
mean token, for the process. Prompts that are solved too seldom or too often are dropped, in all arms. Against outcomes
alone, and against a process reward that was fitted on the start's rollouts and then frozen. Measured are the share of
right replies over the run, held-out accuracy, how well each process reward tells right from wrong early and late, and
that with ``phi`` at the reference the advantage is plain RLOO's. Left out: code, long reasoning, other advantage
estimators, and updating the process reward before it scores. About four minutes on one core.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from rewardkit.credit.base import Rule, apply, chain, per_part
from rewardkit.credit.group import rloo
from rewardkit.credit.process import dense_rloo, pass_rate_filter
from rewardkit.objectives.outcome import outcome_ce_log_ratio
from rewardkit.objectives.policy import clipped
from rewardkit.papers.arithmetic import Figures, base, figures, train
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.policies.language import LanguagePolicy
from rewardkit.rewards.base import RewardBase
from rewardkit.rewards.learned.implicit import ImplicitReward
from rewardkit.rewards.learned.implicit_prm import ImplicitPRM
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Rollout, Scores
from rewardkit.worlds.arithmetic import Arithmetic

WORLD, STEPS, BETA = Arithmetic((2, 3, 4)), 80, 0.05
OBJECTIVE = partial(outcome_ce_log_ratio, beta=BETA)
PARTS = per_part(rloo, by={"prm": dense_rloo})


def filtered(rule: Rule, part: str) -> Rule:
    """The rule on groups that are neither hopeless nor solved."""
    return chain(partial(pass_rate_filter, part=part), rule)


def process_reward(policy: LanguagePolicy) -> tuple[ImplicitPRM, Learner]:
    """Fresh, at the policy's start."""
    phi = Learner(copy.deepcopy(policy), lr=1e-3)
    reward = ImplicitPRM(
        phi.model,  # type: ignore[arg-type]
        policy.at("start"),
        fit=lambda data: phi.step(Term(data, OBJECTIVE)),
        label="gold",
        beta=BETA,
        name="prm",
    )
    return reward, phi


def outcomes(run: Run) -> Figures:
    """RLOO on outcomes alone."""
    policy = base(WORLD, run)
    credit = filtered(rloo, "reward")
    shares = train(run, WORLD, policy, WORLD.gold, credit, clipped, steps=STEPS, lr=_lr(run), reference=None)
    return figures(run, WORLD, policy, shares)


def prime(run: Run, live: bool) -> Figures:
    """Both rewards; the process reward goes on learning, or is fitted to replies of the start and frozen."""
    policy = base(WORLD, run)
    prm, _ = process_reward(policy)
    gap = identity_gap(run, policy, prm)
    reward: RewardBase = prm
    if not live:
        for batch in range(run.size(20, 1)):
            own = 1000 * (run.seed + 1) + batch
            rollout = policy.sample(
                WORLD.prompts(run.size(8, 2), own), run.size(8, 2), sampling=WORLD.sampling, seed=own
            )
            prm.update(rollout, Scores.combine({"gold": WORLD.gold(rollout)}, {"gold": 1.0}))
        reward = ImplicitReward(prm.policy, prm.reference, beta=BETA, dense=True, name="prm")
    told: list[float] = []

    def seen(turn: Any) -> None:
        told.append(auc(turn.scores))

    shares = train(
        run, WORLD, policy, WORLD.gold + reward, filtered(PARTS, "gold"), clipped, steps=STEPS, lr=_lr(run),
        reference=None, seen=seen,
    )  # fmt: skip
    late = [x for x in told[-max(1, len(told) // 4) :] if x == x]
    early = [x for x in told[: max(1, len(told) // 4)] if x == x]
    return {
        **figures(run, WORLD, policy, shares),
        "told_early": float(np.mean(early)) if early else float("nan"),
        "told_late": float(np.mean(late)) if late else float("nan"),
        "identity_gap": gap,
    }


def auc(scores: Scores) -> float:
    """How often a right reply has a higher process score than a wrong one, ties half; not a number without both."""
    value = scores.parts["prm"].dense["token"].sum(1)
    right = scores.parts["gold"].outcome > 0.5  # type: ignore[operator]
    gap: Tensor = value[right][:, None] - value[~right][None, :]
    return float(((gap.sign() + 1) / 2).mean()) if gap.numel() else float("nan")


def identity_gap(run: Run, policy: LanguagePolicy, prm: ImplicitPRM) -> float:
    """Largest difference between the advantages of PRIME, its process reward at the reference, and of RLOO."""
    rollout: Rollout = policy.sample(WORLD.prompts(4, run.seed), 4, sampling=WORLD.sampling, seed=run.seed)
    gold = WORLD.gold(rollout)
    both = Scores.combine({"gold": gold, "prm": prm(rollout)}, {"gold": 1.0, "prm": 1.0})
    ours, plain = apply(PARTS, rollout, both)["advantages"], apply(rloo, rollout, gold)["advantages"]
    return float((ours - plain).abs().max())


def _lr(run: Run) -> float:
    return float(run.point.get("lr", 1e-3))


RECIPE = Recipe(
    slug="prime",
    arms={
        "prime": Arm(partial(prime, live=True)),
        "rloo": Arm(outcomes),
        "prime, frozen": Arm(partial(prime, live=False)),
    },
    expectations=[
        Expect("at the reference the advantage is RLOO's", "identity_gap", "prime", high=1e-5, every=True),
        Expect("PRIME learns faster than outcomes alone", "speed", "prime", "rloo", low=0),
        Expect("PRIME learns faster than with a frozen process reward", "speed", "prime", "prime, frozen", low=0),
        Expect("PRIME ends with more right replies than outcomes alone", "gold", "prime", "rloo", low=0),
        Expect("the live process reward tells right from wrong better, late", "told_late", "prime", "prime, frozen",
               low=0),
        Expect("the frozen process reward gets worse at it", "told_late", "prime, frozen", "prime, frozen", high=0,
               over_figure="told_early"),
    ],
    grid=({"lr": 3e-4}, {"lr": 1e-3}),
    tune="reward",
    scale="a 56,000-weight model, chains of two to four operations, 5,120 sampled replies an arm",
)  # fmt: skip
