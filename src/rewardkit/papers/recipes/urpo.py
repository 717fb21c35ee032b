"""URPO: one policy plays and judges; its answers to open prompts are rewarded by its own grades.

On world ``referee``: one model of 85,000 weights and one GRPO loop over sums (an exact answer is right), rankings
(Kendall's tau of the grades it writes with a noisy annotator's) and open prompts, whose answers it grades in twos by
the weights of the moment; 80 turns of 6 prompts a kind with 8 outputs. Verdicts on its own answers are not trained:
that invites collusion. The baseline judges by a frozen model of equal size that had the same rankings, by as many turns
of RL; two arms leave the rankings or the sums out. The learning rate is chosen by an annotator's preference
over the start. Left out: the curriculum that brings open prompts in late, several evaluation passes, long answers.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

from rewardkit.credit.group import group_relative
from rewardkit.loops.online import online
from rewardkit.loops.prompts import PromptSet
from rewardkit.objectives.policy import clipped
from rewardkit.papers.kit import share_won
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.policies.language import LanguagePolicy
from rewardkit.rewards.base import RewardBase
from rewardkit.rewards.learned.judge import Judge
from rewardkit.rewards.routing import Route
from rewardkit.rewards.rules.ranking import RankAgreement
from rewardkit.rewards.rules.text import ExactMatch
from rewardkit.training.learner import Learner
from rewardkit.types import Sample
from rewardkit.worlds.referee import SHOWN, Referee, grades, shown

WORLD, TURNS, KINDS = Referee(), 80, ("open", "sum", "rank")


def _base(run: Run) -> LanguagePolicy:
    return WORLD.base_policy(steps=run.size(1500, 2))


def prompts(run: Run, kinds: tuple[str, ...]) -> list[Sample]:
    """Six of each kind in turn, so that every batch has all."""
    rounds = run.size(40, 1)
    pools = {"open": WORLD.open(6 * rounds), "sum": WORLD.sums(6 * rounds, run.seed),
             "rank": WORLD.rankings(6 * rounds, 20_000 + run.seed)}  # fmt: skip
    return [s for i in range(rounds) for k in kinds for s in pools[k][6 * i : 6 * i + 6]]


def loop(run: Run, policy: LanguagePolicy, judge: RewardBase, kinds: tuple[str, ...]) -> None:
    """The one loop for all kinds of prompts. A judge in training may lose its form for a while: what it leaves ungraded
    is out of the turn, and the run goes on."""
    reward = Route("kind", {"open": judge, "sum": ExactMatch(), "rank": RankAgreement(grades)})
    for _ in online(
        Learner(policy, lr=run.point.get("lr", 1e-3)), PromptSet(prompts(run, kinds), shuffle=False), reward,
        group_relative, clipped, reference="start", kl=0.02, steps=run.size(TURNS, 1), n=run.size(8, SHOWN),
        batch=6 * len(kinds), inner=2, sampling=WORLD.sampling, max_errors=1.0, seed=run.seed,
    ):  # fmt: skip
        pass


def train(run: Run, kinds: tuple[str, ...] = KINDS, *, frozen: bool = False) -> dict[str, float]:
    """The policy judges itself, or a frozen judge trained on the rankings does."""
    policy = _base(run)
    referee = copy.deepcopy(policy) if frozen else policy
    judge = Judge(referee, shown, grades, size=SHOWN, sampling=WORLD.sampling, seed=run.seed)
    if frozen:
        loop(run, referee, judge, ("rank",))
    loop(run, policy, judge, kinds)
    return figures(run, policy)


def figures(run: Run, policy: Any) -> dict[str, float]:
    """On fresh prompts."""
    found = WORLD.measure(policy, n=run.size(48, 2), seed=9_000 + run.seed)
    return {**found, "preferred": preferred(run, policy)}


def preferred(run: Run, policy: LanguagePolicy) -> float:
    """How often a noisy annotator prefers an answer to one of the start: what a person who tunes has."""
    n = run.size(32, 1)
    new = policy.sample(WORLD.open(6), n, sampling=WORLD.sampling, seed=50_000).samples
    old = policy.at("start").sample(WORLD.open(6), n, sampling=WORLD.sampling, seed=60_000).samples
    return share_won(WORLD.tokens, new, old, run.seed)


URPO, FROZEN, UNTAUGHT = "urpo", "frozen judge", "urpo without rankings"

RECIPE = Recipe(
    slug="urpo",
    arms={
        URPO: Arm(train),
        FROZEN: Arm(partial(train, kinds=("open", "sum"), frozen=True)),
        UNTAUGHT: Arm(partial(train, kinds=("open", "sum"))),
        "urpo without sums": Arm(partial(train, kinds=("open", "rank"))),
        "start": Arm(lambda run: figures(run, _base(run)), tuned=False),
    },
    expectations=[
        Expect("URPO's answers are better than its start's", "gold", URPO, "start", low=0),
        Expect("URPO's answers are better than under a frozen judge", "gold", URPO, FROZEN, low=0),
        Expect("its referee improves", "referee", URPO, "start", low=0),
        Expect("it adds up better", "sums", URPO, "start", low=0),
        Expect("without rankings its grades of itself rise", "self", UNTAUGHT, "start", low=0),
        Expect("while gold stays where it was, to 0.3", "gold", UNTAUGHT, "start", low=-0.3, high=0.3),
        Expect("URPO is better than without rankings", "gold", URPO, UNTAUGHT, low=0),
    ],
    grid=({"lr": 3e-4}, {"lr": 1e-3}),
    tune="preferred",
    scale="an 85,000-weight model, answers of nine characters, 80 turns",
)
