"""Fine-Grained RLHF: several reward models, each paid where its own segments end, against one holistic model.

On world ``tokens``: annotators mark idle and wrong characters (a tenth of the marks flipped) and compare whole replies
for completeness, as noisily as they compare anything. Two heads of a token classifier give -1 or +1 a character, a
scalar model one number a reply; PPO with GAE, a critic and a KL. Arms on the same 3,840 sampled replies: one
Bradley-Terry model of the annotators' liking; the same fine-grained models summed and paid at the end, the trap; and
paid where the segments end. Two more arms move the weight of completeness. The holistic model has 1,000 compared pairs,
the fine-grained ones 480, and two marks for each character of the same 960 replies: another kind of work, which is not
made equal here. Figures are errors a reply, at the end and on average over the run. The learning rate is chosen by an
annotator's preference over the start. Left out: long-form answers with sentences as segments, toxicity, and the paper's
pre-training mix.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from rewardkit.credit.placement import place
from rewardkit.feedback.spans import span_labels
from rewardkit.objectives.segment import segment_ce
from rewardkit.papers.kit import comparisons, ppo, preferred, reward_model
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.policies.language import LanguagePolicy
from rewardkit.rewards.base import RewardBase
from rewardkit.rewards.learned.process import Kind, ProcessReward
from rewardkit.training.fit import fit
from rewardkit.training.learner import Learner
from rewardkit.types import Judgement, Rollout, Sample, Scores
from rewardkit.worlds.tokens import LENGTH, OWN, Tokens, errors, gold_score, letters

TURNS, N = 40, 16


class Summed(RewardBase):
    """The same total, paid at the end."""

    name = "summed"

    def __init__(self, reward: RewardBase) -> None:
        self.reward = reward

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        return Scores(place(self.reward(rollout, ctx), rollout).sum(-1))


def _world(run: Run) -> Tokens:
    return Tokens(length=run.size(LENGTH, 2))


def _base(run: Run) -> LanguagePolicy:
    return _world(run).base(steps=run.size(300, 2))


def missing(sample: Sample) -> int:
    """Letters of the topic that a reply lacks."""
    return OWN - len(set(letters(ord(sample.prompt) - ord("A"))) & set(sample.output))


def holistic(run: Run, policy: LanguagePolicy) -> RewardBase:
    """One model of the annotators' liking."""
    return reward_model(policy, comparisons(_world(run), policy, run.size(1000, 12), 10 + run.seed), run.seed,
                        epochs=run.size(3.0, 0.1))  # fmt: skip


def fine(run: Run, policy: LanguagePolicy, *, complete: float = 0.5) -> RewardBase:
    """Marks of two kinds on characters, and comparisons of completeness alone: weights 0.3, 0.5 and ``complete``."""
    world = _world(run)
    drawn = world.draw(policy, run.size(160, 2), 40 + run.seed)
    process = ProcessReward.from_policy(policy, {"idle": Kind(weight=0.3), "wrong": Kind(weight=0.5)}, seed=run.seed)
    data = span_labels(process, policy.encode(drawn.samples), world.mark(drawn.samples, run.seed))
    for _ in fit(Learner(process, lr=1e-3), data, segment_ce, epochs=run.size(3.0, 0.1), batch=32, seed=run.seed):
        pass
    whole = reward_model(
        policy, completeness(world, drawn.samples, run.seed), run.seed, epochs=run.size(3.0, 0.1), name="complete"
    )
    return process + complete * whole


def completeness(world: Tokens, samples: Sequence[Sample], seed: int) -> list[Judgement]:
    """Neighbours compared by what they lack, with the noise of the comparisons as a whole."""
    rng, found = np.random.default_rng(seed), []
    for a, b in zip(samples[0::2], samples[1::2], strict=True):
        first = rng.random() < 1 / (1 + np.exp((missing(a) - missing(b)) / world.noise))
        found.append(Judgement((a, b), rank=(0, 1) if first else (1, 0), annotator=f"simulated {seed}"))
    return found


def train(run: Run, make: Any, *, at_end: bool = False) -> dict[str, Any]:
    """PPO against one of the rewards."""
    policy, world = _base(run), _world(run)
    made: RewardBase = make(run, policy)
    turns = ppo(world, policy, Summed(made) if at_end else made, run.seed, steps=run.size(TURNS, 1), beta=0.1,
                lr=run.point.get("lr", 1e-3), n=run.size(N, 2))  # fmt: skip
    curve = [error_rates(turn.rollout.samples)["errors"] for turn in turns]
    return {**figures(run, policy), "errors on the way": float(np.mean(curve)), "errors by turn": curve}


def error_rates(samples: Any) -> dict[str, float]:
    """Errors a reply, by kind and in all; ``length`` in characters."""
    marks = [errors(s.prompt, s.output) for s in samples]
    found = {k: float(np.mean([sum(k in m for m in row) for row in marks])) for k in ("idle", "wrong")}
    found["missing"] = float(np.mean([missing(s) for s in samples]))
    return {**found, "errors": sum(found.values()), "length": float(np.mean([len(s.output) for s in samples]))}


@torch.no_grad()
def figures(run: Run, policy: LanguagePolicy) -> dict[str, float]:
    """On fresh replies."""
    world = _world(run)
    rollout = world.draw(policy, run.size(64, 1), 10_000)
    gold = [gold_score(s.prompt, s.output, ended=s.ended == "done") for s in rollout.samples]
    shown = {"gold": float(np.mean(gold)), "kl": world.kl(policy, rollout)}
    return {**error_rates(rollout.samples), **shown, "preferred": preferred(world, policy, run.seed, n=run.size(32, 1))}


FINE, END, WHOLE = "segments", "summed at the end", "holistic"

RECIPE = Recipe(
    slug="fine_grained_rlhf",
    arms={
        FINE: Arm(partial(train, make=fine)),
        END: Arm(partial(train, make=fine, at_end=True)),
        WHOLE: Arm(partial(train, make=holistic)),
        "complete x 4": Arm(partial(train, make=partial(fine, complete=2.0))),
        "complete / 4": Arm(partial(train, make=partial(fine, complete=0.125))),
        "start": Arm(lambda run: figures(run, _base(run)), tuned=False),
    },
    expectations=[
        Expect("segments end with fewer errors than the holistic model", "errors", FINE, WHOLE, high=0),
        Expect("segments end with fewer errors than the same models summed", "errors", FINE, END, high=0),
        Expect("summed, they end with fewer errors than the holistic model", "errors", END, WHOLE, high=0),
        Expect("segments have fewer errors on the way than summed", "errors on the way", FINE, END, high=0),
        Expect("more weight on completeness leaves less out", "missing", "complete x 4", "complete / 4", high=0),
        Expect("and makes replies longer", "length", "complete x 4", "complete / 4", low=0),
    ],
    grid=({"lr": 3e-4}, {"lr": 1e-3}, {"lr": 3e-3}),
    tune="preferred",
    scale="a 20,000-weight model on short strings, 3,840 sampled replies an arm",
)
