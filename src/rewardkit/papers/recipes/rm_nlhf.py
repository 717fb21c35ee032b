"""RM-NLHF: a judge is trained by RL on its label and on the likeness of its critique to a person's.

On world ``critics``: a judge of some fifty thousand weights, 1,000 labelled pairs, 100 turns of 16 of them with 8
verdicts. The baseline is paid for the label alone; the method also for the F1 of the arguments it names, and has a
person's critique of every pair more. Two arms have a critique of a fifth of the pairs, and a MetaRM gives the rest its
process reward: fitted to those alone, beforehand, or again each second turn on fresh verdicts. A control pays for
random critiques. The learning rate is chosen by training accuracy. Figures are taken where a mark that gave the answer
away in training says nothing. Left out: free text and a model that extracts its arguments, paying for the critique only
where the label is right, and published benchmarks of reward models.
"""

from __future__ import annotations

import random
from dataclasses import replace
from functools import partial

import torch

from rewardkit.credit.group import group_relative
from rewardkit.loops.online import online
from rewardkit.loops.prompts import PromptSet
from rewardkit.objectives.policy import clipped
from rewardkit.objectives.ratings import squared_error
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.policies.language import LanguagePolicy
from rewardkit.rewards.learned.meta import MetaReward
from rewardkit.rewards.learned.scalar import ScalarReward
from rewardkit.rewards.rules.critique import CritiqueSimilarity
from rewardkit.rewards.rules.text import ExactMatch
from rewardkit.training.fit import fit
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Rollout, Sample
from rewardkit.worlds.critics import ATTRIBUTES, Critics, named

TURNS, LABEL = 100, ExactMatch(extract=r"[12]$").named("label")


def _world(annotated: float) -> Critics:
    return Critics(annotated=annotated)


def _base(run: Run) -> LanguagePolicy:
    return _world(1.0).base_policy(steps=run.size(400, 2))


def meta(run: Run, policy: LanguagePolicy, pairs: list[Sample], *, online: bool) -> MetaReward:
    """A MetaRM fitted to the base judge's verdicts on the pairs that have a critique; ``online``: and to those of the
    judge as it is. It costs no critique beyond those."""
    critique = CritiqueSimilarity(named)
    model = ScalarReward.from_policy(policy, seed=run.seed, name="meta model")
    learner = Learner(model, lr=1e-3)
    known = [p for p in pairs if "critique" in p.hidden]
    drawn = policy.sample(known, 4, sampling=_world(1.0).sampling, seed=run.seed)
    data = model.encode(drawn.samples).with_tensors(rating=critique(drawn).outcome)  # type: ignore[arg-type]
    for _ in fit(learner, data, squared_error, epochs=run.size(3.0, 0.1), batch=32, seed=run.seed):
        pass

    def refit(rows: Rollout, target: torch.Tensor) -> dict[str, float]:
        return learner.step(Term(model.encode(rows.samples).with_tensors(rating=target), squared_error))

    return MetaReward(critique, model, fit=refit, every=2 if online else None)


def train(run: Run, kind: str) -> dict[str, float]:
    """GRPO; ``kind`` says what is paid beside the label."""
    policy, partly = _base(run), kind in ("offline", "online")
    pairs = _world(0.2 if partly else 1.0).pairs(run.size(1000, 16), 20_000 + run.seed)
    if kind == "random":
        chance = random.Random(run.seed)
        pairs = [_with(p, critique=(chance.choice(ATTRIBUTES),)) for p in pairs]
    extra = meta(run, policy, pairs, online=kind == "online") if partly else CritiqueSimilarity(named)
    reward = LABEL if kind == "label" else LABEL + extra
    accuracy = []
    for turn in online(
        Learner(policy, lr=run.point.get("lr", 1e-3)), PromptSet(pairs, seed=run.seed), reward, group_relative, clipped,
        reference="start", kl=0.01, steps=run.size(TURNS, 1), n=run.size(8, 2), batch=run.size(16, 2), inner=2,
        sampling=_world(1.0).sampling, seed=run.seed,
    ):  # fmt: skip
        accuracy.append(float(LABEL(turn.rollout).outcome.mean()))  # type: ignore[union-attr]
    return {**figures(run, policy), "training": sum(accuracy[-10:]) / len(accuracy[-10:])}


def _with(sample: Sample, **hidden: object) -> Sample:
    return replace(sample, hidden={**sample.hidden, **hidden})


def figures(run: Run, policy: LanguagePolicy) -> dict[str, float]:
    """On fresh pairs."""
    return _world(1.0).measure(policy, pairs=run.size(300, 4), n=run.size(4, 1), seed=9_000 + run.seed)


BOTH, ONLINE, OFFLINE = "label and critique", "a fifth annotated, online MetaRM", "a fifth annotated, offline MetaRM"

RECIPE = Recipe(
    slug="rm_nlhf",
    arms={
        BOTH: Arm(partial(train, kind="critique")),
        "label": Arm(partial(train, kind="label")),
        ONLINE: Arm(partial(train, kind="online")),
        OFFLINE: Arm(partial(train, kind="offline")),
        "label and random critique": Arm(partial(train, kind="random")),
        "start": Arm(lambda run: figures(run, _base(run)), tuned=False),
    },
    expectations=[
        Expect("judges paid for the label alone are often right for wrong reasons", "inconsistent", "label", low=0.2),
        Expect("the critique's reward lowers that by a fifth", "inconsistent", BOTH, "label", high=-0.2),
        Expect("and labels are right more often elsewhere", "elsewhere", BOTH, "label", low=0),
        Expect("an online MetaRM ends with at least the offline one's core F1", "core_f1", ONLINE, OFFLINE, low=-0.02),
        Expect("the online MetaRM beats the label alone", "core_f1", ONLINE, "label", low=0),
        Expect("random critiques help no label", "elsewhere", "label and random critique", "label", high=0.05),
    ],
    grid=({"lr": 3e-4}, {"lr": 1e-3}, {"lr": 3e-3}),
    tune="training",
    scale="a 50,000-weight judge, six attributes, critiques of one argument",
)
