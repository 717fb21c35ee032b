"""The demo's run: SFT model, comparisons, reward model, then three ways to use it, each measured along the way."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from rewardkit.cli.demo.results import Track
from rewardkit.data.rows import attach, comparison_rows
from rewardkit.evals.overoptimization import Point, Ruler, outcomes
from rewardkit.evals.pairwise import pairwise
from rewardkit.feedback.pairs import best_worst_pairs
from rewardkit.guidance.best_of_n import best_of_n_curve, best_of_n_kl
from rewardkit.loops.online import online, parts_of
from rewardkit.loops.prompts import PromptSet
from rewardkit.loops.rounds import rounds
from rewardkit.objectives.methods import grpo
from rewardkit.objectives.preference import dpo
from rewardkit.objectives.reward import bradley_terry
from rewardkit.policies.language import LanguagePolicy, Sampling
from rewardkit.rewards.learned.scalar import ScalarReward
from rewardkit.rewards.scoring import better_pairs
from rewardkit.training.fit import fit
from rewardkit.training.learner import Learner
from rewardkit.training.progress import progress
from rewardkit.training.tracking import Tracker
from rewardkit.types import Judgement, Sample
from rewardkit.worlds.assistant import AssistantWorld


@dataclass(frozen=True)
class Budget:
    """Everything that costs time, and the hyper-parameters, in one place.

    Args:
        sft_*: of the base policy, see :data:`rewardkit.worlds.assistant.model.DEFAULTS`; ``None`` for those.
        rankings, ranked: groups of SFT replies that an annotator puts in order for the reward model, and replies in
            each. held_out: comparisons on validation prompts, to measure it by. rm_*: its fit, in groups.
        test, validation: prompts to measure on, and prompts on which annotators are asked where to stop.
        grpo_*, dpo_*: updates, units an update, outputs a prompt, learning rates, and how often to measure.
        best_of: largest n. shown: prompts printed in the report. tokens: longest reply.
    """

    sft_steps: int | None = None
    sft_demonstrations: int | None = None
    rankings: int = 1600
    ranked: int = 4
    held_out: int = 600
    rm_epochs: float = 1
    rm_batch: int = 16
    rm_lr: float = 1e-3
    test: int = 200
    validation: int = 300
    grpo_updates: int = 20
    grpo_every: int = 4
    grpo_prompts: int = 16
    grpo_group: int = 6
    grpo_lr: float = 4e-4
    grpo_kl: float = 0.05
    dpo_prompts: int = 300
    dpo_group: int = 6
    dpo_rounds: int = 3
    dpo_batch: int = 32
    dpo_lr: float = 2e-4
    dpo_beta: float = 0.1
    best_of: int = 16
    shown: int = 6
    tokens: int = 80

    @property
    def sft(self) -> dict[str, int]:
        """What of the base policy's settings is not the default."""
        asked = {"steps": self.sft_steps, "demonstrations": self.sft_demonstrations}
        return {k: v for k, v in asked.items() if v is not None}

    @property
    def sampling(self) -> Sampling:
        """Temperature 1, as the policies are."""
        return Sampling(max_new_tokens=self.tokens, temperature=1.0)


SMOKE = Budget(
    sft_steps=20, sft_demonstrations=200, rankings=24, held_out=24, rm_epochs=1, test=12, validation=8,
    grpo_updates=2, grpo_every=1, grpo_prompts=2, grpo_group=3, dpo_prompts=6, dpo_group=3, dpo_rounds=2, best_of=4,
    shown=2, tokens=16,
)  # fmt: skip
"""The same code in seconds, for tests; its figures mean nothing."""


def compare_replies(
    world: AssistantWorld, sft: LanguagePolicy, prompts: Sequence[Sample], n: int, budget: Budget, seed: int
) -> list[Judgement]:
    """One judgement on each of ``n`` pairs of SFT replies, spread evenly; identical replies are nobody's business."""
    each = math.ceil(n / len(prompts))
    rollout = sft.sample(prompts[:n], 2 * each, sampling=budget.sampling, seed=seed)
    first, second = rollout.samples[0::2], rollout.samples[1::2]
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a.output != b.output]
    return world.annotators().compare([a for a, _ in pairs], [b for _, b in pairs])


def rank_replies(world: AssistantWorld, sft: LanguagePolicy, budget: Budget, seed: int) -> list[Judgement]:
    """One ranking of several SFT replies to each of the first training prompts."""
    prompts = world.prompts("train", budget.rankings)
    replies = sft.sample(prompts, budget.ranked, sampling=budget.sampling, seed=seed).samples
    k = budget.ranked
    return world.annotators().rank([replies[i * k : (i + 1) * k] for i in range(len(prompts))])


def fit_reward(sft: LanguagePolicy, judgements: Sequence[Judgement], budget: Budget, logs: Path) -> ScalarReward:
    """A Bradley-Terry reward model on the SFT model's trunk, from all pairs of every ranking; ties teach nothing."""
    model = ScalarReward.from_policy(sft, seed=0, name="learned")
    rows = comparison_rows([j for j in judgements if not j.tied])
    data = attach(model.encode(rows.samples), rows)
    learner = Learner(model, lr=budget.rm_lr, weight_decay=0.01, schedule="linear", warmup=0.1)
    with Tracker(logs / "reward_model") as tracker:
        steps = fit(learner, data, bradley_terry, epochs=budget.rm_epochs, batch=budget.rm_batch, tracker=tracker)
        total = math.ceil(budget.rm_epochs * math.ceil(len(rows.group.unique()) / budget.rm_batch))
        for _ in progress(steps, total=total, label="reward model", show=lambda s: {"loss": s.metrics["loss"]}):
            pass
    return model


def measure_reward(
    reward: ScalarReward, world: AssistantWorld, train: Sequence[Judgement], held_out: Sequence[Judgement]
) -> dict[str, Any]:
    """The reward model on comparisons whose prompts it never saw, beside gold on the same labels: the ceiling."""
    own, gold = pairwise(reward, held_out), pairwise(world.gold, held_out)
    return {
        **own.flat(),
        "train_rankings": len(train),
        "train_pairs": sum(len(better_pairs(j)[0]) for j in train),
        "ceiling": gold.accuracy.value,
        "ceiling_low": gold.accuracy.ci[0] if gold.accuracy.ci else None,
        "ceiling_high": gold.accuracy.ci[1] if gold.accuracy.ci else None,
        "gold_length_bias": gold.length_bias,
    }


@dataclass(frozen=True)
class Setting:
    """What every way of using the reward starts from."""

    world: AssistantWorld
    sft: LanguagePolicy
    reward: ScalarReward
    ruler: Ruler
    budget: Budget
    seed: int
    logs: Path


@dataclass(frozen=True)
class Outcome:
    """One method with one seed: its track, and its replies to the shown prompts by name."""

    track: Track
    replies: dict[str, list[str]]


def run_grpo(s: Setting) -> Outcome:
    """GRPO against the learned reward, measured every few updates; the policy at the stop is saved."""
    b, begin = s.budget, time.perf_counter()
    learner = Learner(clone(s.sft), lr=b.grpo_lr, warmup=4)
    method = parts_of(replace(grpo, kl=b.grpo_kl, n=b.grpo_group, reduce="tokens"))
    prompts = PromptSet(s.world.prompts("train"), seed=s.seed)

    def walk() -> Iterator[int]:
        with Tracker(s.logs / f"grpo-{s.seed}") as tracker:
            loop = online(
                learner, prompts, s.reward, **method, reference="start", batch=b.grpo_prompts, sampling=b.sampling,
                steps=b.grpo_updates, seed=s.seed, tracker=tracker,
            )  # fmt: skip
            for turn in loop:
                yield turn.step

    outputs = b.grpo_updates * b.grpo_prompts * b.grpo_group
    track, stop, end = _measured("GRPO", s, learner, walk(), b.grpo_updates, b.grpo_every, outputs, begin)
    stop.save(s.logs.parent / f"policy-{s.seed}")
    return Outcome(track, {"GRPO": replies(s, stop), "GRPO, end": replies(s, end)})


def run_dpo(s: Setting) -> Outcome:
    """DPO on the SFT model's own replies, best against worst of a group by the learned reward, measured every round."""
    b, begin = s.budget, time.perf_counter()
    prompts = PromptSet(s.world.prompts("train"), seed=s.seed).draw(b.dpo_prompts)
    drawn = s.sft.sample(prompts, b.dpo_group, sampling=b.sampling, seed=s.seed)
    pairs = best_worst_pairs(drawn, s.reward(drawn))
    learner = Learner(clone(s.sft), lr=b.dpo_lr, warmup=8)
    updates = math.ceil(len(pairs) / 2 / b.dpo_batch)

    def walk() -> Iterator[int]:
        with Tracker(s.logs / f"dpo-{s.seed}") as tracker:
            loop = rounds(
                learner, lambda policy, turn: pairs, partial(dpo, beta=b.dpo_beta), reference="start",
                rounds=b.dpo_rounds, batch=b.dpo_batch, seed=s.seed, tracker=tracker,
            )  # fmt: skip
            for turn in loop:
                yield turn.round * updates

    track, stop, _ = _measured("DPO", s, learner, walk(), b.dpo_rounds * updates, updates, len(drawn), begin)
    return Outcome(track, {"DPO": replies(s, stop)})


def _measured(
    label: str, s: Setting, learner: Learner, walk: Iterator[int], total: int, every: int, outputs: int, begin: float
) -> tuple[Track, LanguagePolicy, LanguagePolicy]:
    """Walk a loop that yields its number of updates, and measure the policy before it, on the way and at the end.

    Returns:
        the track, and the policies at the stopping point and at the end.
    """
    policy: Any = learner.model
    points, kept = [s.ruler.measure(policy, 0)], [policy.keep("0")]
    name = label if s.seed == 0 else f"{label}, seed {s.seed}"
    for step in progress(walk, label=name, show=lambda _: {"proxy": points[-1].proxy, "KL": points[-1].kl}):
        if step % every == 0 or step == total:
            points.append(s.ruler.measure(policy, step))
            kept.append(policy.keep(str(step)))
    track = Track(points, s.ruler.noise, time.perf_counter() - begin, outputs)
    return track, kept[track.stop], kept[-1]


def run_best_of_n(s: Setting) -> Outcome:
    """Best of n, every n without bias from one pool of draws a prompt; replies are those of the largest n."""
    b, begin, ruler = s.budget, time.perf_counter(), s.ruler
    ns = [2**i for i in range(b.best_of.bit_length()) if 2**i <= b.best_of]

    def over_n(proxy: Tensor, values: Tensor) -> list[float]:
        return best_of_n_curve(proxy.reshape(-1, b.best_of), values.reshape(-1, b.best_of), ns).mean(0).tolist()

    stages = progress((ruler.prompts, ruler.validation), label="best of n")
    pool, asked = (
        s.sft.sample(prompts, b.best_of, sampling=b.sampling, seed=ruler.seed + 11 + i)
        for i, prompts in enumerate(stages)
    )
    proxy, gold = outcomes(ruler.proxy, pool), outcomes(ruler.gold, pool)
    found = {
        "proxy": over_n(proxy, proxy),
        "gold": over_n(proxy, gold),
        "winrate": over_n(proxy, ruler.wins(gold)),
        "length": over_n(proxy, pool.mask.sum(-1).cpu()),
        "preferred": over_n(outcomes(ruler.proxy, asked), ruler.preferences(asked)),
    }
    points = [
        Point(step=n, kl=best_of_n_kl(n), n=len(ruler.prompts), asked=len(ruler.validation), **values)
        for n, values in zip(ns, ({k: v[i] for k, v in found.items()} for i in range(len(ns))), strict=True)
    ]
    winners = proxy.reshape(-1, b.best_of).argmax(1)[: b.shown].tolist()
    best = [str(pool.samples[i * b.best_of + w].output) for i, w in enumerate(winners)]
    track = Track(points, ruler.noise, time.perf_counter() - begin, len(pool))
    return Outcome(track, {f"Best of {b.best_of}": best})


METHODS = {"grpo": run_grpo, "dpo": run_dpo, "best_of_n": run_best_of_n}


def replies(s: Setting, policy: LanguagePolicy) -> list[str]:
    """One reply to each of the shown prompts, with the same seed for every policy."""
    shown = policy.sample(s.ruler.prompts[: s.budget.shown], sampling=s.budget.sampling, seed=7)
    return [str(x.output) for x in shown.samples]


def clone(policy: LanguagePolicy) -> LanguagePolicy:
    """A policy of its own with the same weights, which are its ``start``."""
    twin = copy.deepcopy(policy)
    twin.keep("start")
    return twin
