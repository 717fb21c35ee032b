"""What the proofs of verifiable text worlds share: a reward model from comparisons, policy gradient, preferences.

There is no backpropagation in them: the reward reads text, and text is discrete.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks.proofs.kit import Curve, Proof, Run, gold_by_kl, learned, policy_gradient, preferences
from rewardkit.data.rows import attach, comparison_rows
from rewardkit.evals.report.page import Reply, Shown
from rewardkit.objectives.preference import dpo
from rewardkit.policies.language import LanguagePolicy
from rewardkit.protocols import Reward
from rewardkit.rewards.base import RewardBase
from rewardkit.rewards.learned.implicit import ImplicitReward
from rewardkit.rewards.learned.scalar import ScalarReward
from rewardkit.training.fit import fit
from rewardkit.training.learner import Learner
from rewardkit.training.reference import attach_reference
from rewardkit.types import Judgement, Rollout, Sample, Scores


class Seen(RewardBase):
    """A reward that also notes the gold score of everything it is shown, for the curve; nothing is trained on that."""

    def __init__(self, reward: Reward, gold: Reward) -> None:
        self.reward, self.gold, self.name, self.points = reward, gold, reward.name, list[dict[str, float]]()

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        found = self.gold(rollout).outcome
        if found is not None:
            self.points.append({"step": len(self.points) + 1, "gold": float(found.mean())})
        return self.reward(rollout, ctx)


def scalar(base: LanguagePolicy, judged: Sequence[Judgement], seed: int) -> Reward:
    """One number at the last token of a copy of the base policy, by Bradley-Terry."""
    return learned(ScalarReward.from_policy(base, seed=seed), judged, lr=2e-3, epochs=3, batch=32, seed=seed)


def implicit(base: LanguagePolicy, judged: Sequence[Judgement], seed: int, *, beta: float = 0.1) -> Reward:
    """The log-ratio of a copy of the base policy, trained by DPO on the comparisons, to the base policy.

    Args:
        judged: of pairs; those of two equal replies say nothing and are left out.
    """
    model = copy.deepcopy(base)
    rows = comparison_rows([j for j in judged if j.items[0].output != j.items[1].output])
    data = attach_reference(attach(model.encode(rows.samples), rows), model.at("start"))
    learner = Learner(model, lr=1e-3, schedule="linear", warmup=0.1)
    for _ in fit(learner, data, partial(dpo, beta=beta), epochs=1, batch=32, seed=seed):
        pass
    return ImplicitReward(model, model.at("start"), beta=beta)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A world with everything that the proof needs.

    Args:
        kind: of the generator. world: has ``gold``, ``compare``, ``measure`` and ``prompts``. base: the base policy.
        options: of ``online`` and ``sample``: ``sampling``, and ``env`` where there is one.
        pairs: comparisons for the reward model. learn: makes it, from the base policy, comparisons and a seed.
        different: prompts to train on. beta: reward a nat. lr, steps, batch, n: of policy gradient.
        offline: prompts with four outputs each for preferences. epochs: over them. dpo_beta: of their loss.
        words: an output as people read it.
    """

    name: str
    kind: str
    note: str
    world: Any
    base: LanguagePolicy
    options: Mapping[str, Any]
    pairs: int
    words: Callable[[Sample], str]
    learn: Callable[[LanguagePolicy, Sequence[Judgement], int], Reward] = scalar
    different: int = 96
    beta: float = 0.2
    lr: float = 3e-4
    steps: int = 60
    batch: int = 8
    n: int = 8
    offline: int = 200
    epochs: float = 3
    dpo_beta: float = 0.1
    figures: Mapping[str, Any] = field(default_factory=dict)

    def prompts(self, n: int, seed: int, *, test: bool = False) -> list[Sample]:
        """``n`` prompts; beyond ``different`` of them they come again."""
        few = self.world.prompts(min(n, self.different), seed, test=test)
        return [few[i % len(few)] for i in range(n)]

    def draw(self, policy: LanguagePolicy, prompts: Sequence[Sample], n: int, seed: int) -> Rollout:
        """``n`` outputs of each."""
        return policy.sample(prompts, n, seed=seed, **self.options)


def reward_model(setting: Setting, seed: int) -> Reward:
    """Learned from noisy comparisons of the base policy's own outputs."""
    drawn = setting.draw(setting.base, setting.prompts(setting.pairs, 300 + seed), 2, 100 + seed).samples
    judged = setting.world.compare(drawn[0::2], drawn[1::2], seed=seed)
    return setting.learn(setting.base, judged, seed)


def tells(setting: Setting, reward: Reward, seed: int) -> float:
    """How often the reward prefers the right one of two of the base policy's outputs to a test prompt, one is right."""
    drawn = setting.draw(setting.base, setting.prompts(96, 700 + seed, test=True), 4, 900 + seed)
    said, right = reward(drawn).outcome, setting.world.gold(drawn).outcome
    if said is None:
        raise ValueError("a reward model gives an outcome")
    wins = [
        float(said[i] > said[j])
        for i in range(len(drawn))
        for j in range(len(drawn))
        if drawn.group[i] == drawn.group[j] and right[i] > right[j]
    ]
    return statistics.fmean(wins)


def by_policy_gradient(setting: Setting, policy: LanguagePolicy, reward: Reward, seed: int) -> list[dict[str, float]]:
    """Against the learned reward; the gold of what was sampled, a mean of every ten turns: one has few prompts."""
    seen = Seen(reward, setting.world.gold)
    policy_gradient(
        policy, seen, setting.prompts(setting.different, 400 + seed), beta=setting.beta, lr=setting.lr, seed=seed,
        n=setting.n, steps=setting.steps, batch=setting.batch, **setting.options,
    )  # fmt: skip
    turns = [seen.points[i : i + 10] for i in range(0, len(seen.points), 10)]
    return [{"step": ten[-1]["step"], "gold": statistics.fmean(p["gold"] for p in ten)} for ten in turns]


def by_preferences(setting: Setting, policy: LanguagePolicy, reward: Reward, seed: int) -> None:
    """Best against worst of four of the base policy's own outputs."""
    drawn = setting.draw(policy, setting.prompts(setting.offline, 500 + seed), 4, 200 + seed)
    preferences(policy, drawn, reward, beta=setting.dpo_beta, lr=3e-4, epochs=setting.epochs, seed=seed)


def prove(setting: Setting, run: Run) -> Proof:
    """Every method and seed."""
    measure = setting.world.measure
    proof = Proof(setting.name, setting.note)
    proof.curve = Curve(
        "gold", "gold of what was sampled", "Policy gradient on the learned reward: means of ten turns."
    )
    proof.add(setting.kind, "base", 0, measure(setting.base, **setting.figures))
    shown, told = {"base": setting.base}, []
    for seed in range(run.seeds):
        reward = reward_model(setting, seed)
        told.append(tells(setting, reward, seed))
        run.say(f"{setting.name}, seed {seed}: the reward model prefers the right one {told[-1]:.2f}")
        for name in ("policy gradient", "preferences"):
            policy = copy.deepcopy(setting.base)
            if name == "preferences":
                by_preferences(setting, policy, reward, seed)
            else:
                points = by_policy_gradient(setting, policy, reward, seed)
                proof.curves.setdefault(setting.kind, []).append(points)
            run.say(proof.add(setting.kind, name, seed, measure(policy, **setting.figures)))
            if seed == 0:
                shown[name] = policy
    proof.note += (
        f"; the reward model tells a right reply from a wrong one in {statistics.fmean(told):.0%} of fresh pairs"
    )
    proof.pictures.append(gold_by_kl(proof.rows))
    proof.samples = [_outputs(setting, prompt, shown) for prompt in setting.prompts(6, 9, test=True)]
    return proof


def _outputs(setting: Setting, prompt: Sample, policies: Mapping[str, LanguagePolicy]) -> Shown:
    """One output of each policy to a test prompt, with its gold score."""
    found = []
    for name, policy in policies.items():
        rollout = setting.draw(policy, [prompt], 1, 5)
        gold = setting.world.gold(rollout).outcome
        found.append(Reply(name, setting.words(rollout.samples[0]), f"gold {float(gold[0]):.0f}"))
    return Shown(f"{str(prompt.asked).strip()}  (right: {prompt.hidden['answer'].strip()})", found)
