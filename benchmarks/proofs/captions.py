"""World captions: a reward model that reads pictures, then policy gradient and preferences, for a small LLaVA.

There is no backpropagation in it: the reward reads text, and text is discrete.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from benchmarks.proofs.kit import Proof, Run, compared, gold_by_kl, learned, policy_gradient, preferences
from rewardkit.evals.report.charts import drawing
from rewardkit.policies.vision_language import VisionLanguagePolicy
from rewardkit.rewards.learned.vision import VisionScalarReward
from rewardkit.types import Rollout
from rewardkit.worlds.captions import HOW, Captions, right, spoken
from rewardkit.worlds.shapes.scene import COLOURS, COUNTS, SHAPES, SIZES, Scene

WORLD, KIND, BETA = Captions(), "vision-language", 0.3
WORDS: dict[str, list[Any]] = {
    "count": list(COUNTS.values()), "size": list(SIZES), "colour": list(COLOURS), "shape": list(SHAPES)
}  # fmt: skip
RIGHT, WRONG = "#20876b", "#a23b72"


def drawn(policy: VisionLanguagePolicy, pictures: int, n: int, seed: int) -> Rollout:
    """``n`` captions of each picture."""
    return policy.sample(WORLD.prompts(pictures, seed), n, sampling=HOW, seed=seed)


def reward_model(base: VisionLanguagePolicy, seed: int) -> VisionScalarReward:
    """Bradley-Terry on noisy comparisons of the base policy's own captions."""
    judged = compared(WORLD.compare, drawn(base, 4000, 4, 11_000 + seed), 1, seed=seed)
    return learned(VisionScalarReward.from_policy(base, seed=seed), judged, lr=1.5e-4, epochs=3, batch=32, seed=seed)


def tells(base: VisionLanguagePolicy, reward: VisionScalarReward, seed: int) -> tuple[float, float]:
    """How often the reward, and how often an annotator, prefers the better of two captions of a picture never seen."""
    shown = drawn(base, 600, 2, 3_000 + seed)
    said, gold = reward(shown).outcome, WORLD.gold(shown).outcome
    assert said is not None
    assert gold is not None
    judged = WORLD.compare(shown.samples[0::2], shown.samples[1::2], seed=seed)
    better, preferred = (x[0::2] - x[1::2] for x in (gold, said))
    clear = [i for i, gap in enumerate(better.tolist()) if gap]
    return (
        statistics.fmean(float(better[i] * preferred[i] > 0) for i in clear),
        statistics.fmean(float((better[i] > 0) == (judged[i].rank == (0, 1))) for i in clear),
    )


def by_word(reward: VisionScalarReward, seed: int) -> dict[str, float]:
    """How often the reward prefers the right caption of a new picture to one with another word in one place."""
    chance, asked = random.Random(seed), WORLD.demonstrations(200, 9_000 + seed, garble=0.0)
    best, found = reward.score(asked).outcome, {}
    assert best is not None
    for name, values in WORDS.items():
        changed = []
        for s in asked:
            truth = Scene.parse(str(s.output))
            other = chance.choice([v for v in values if v != getattr(truth, name)])
            changed.append(replace(s, output=replace(truth, **{name: other}).caption))
        worse = reward.score(changed).outcome
        assert worse is not None
        found[name] = float((best > worse).float().mean())
    return found


def by_policy_gradient(policy: VisionLanguagePolicy, reward: VisionScalarReward, seed: int) -> None:
    """Against the learned reward."""
    prompts = WORLD.prompts(400, 5_000 + seed)
    policy_gradient(policy, reward, prompts, beta=BETA, lr=1e-4, n=8, batch=16, steps=40, sampling=HOW, seed=seed)


def by_preferences(policy: VisionLanguagePolicy, reward: VisionScalarReward, seed: int) -> None:
    """Best against worst of four of the base policy's own captions."""
    preferences(policy, drawn(policy, 600, 4, 7_000 + seed), reward, beta=1.0, lr=1e-4, epochs=3, seed=seed)


METHODS: dict[str, Callable[[VisionLanguagePolicy, VisionScalarReward, int], None]] = {
    "policy gradient": by_policy_gradient,
    "preferences": by_preferences,
}


def prove(run: Run) -> Proof:
    """Every method and seed."""
    base, told, words = WORLD.base_policy(), [], []
    proof = Proof("captions", "")
    proof.add(KIND, "base", 0, WORLD.measure(base))

    def show(name: str, policy: VisionLanguagePolicy) -> None:
        proof.pictures.append(gallery(name, policy))

    show("base", base)
    for seed in range(run.seeds):
        reward = reward_model(base, seed)
        told.append(tells(base, reward, seed))
        words.append(by_word(reward, seed))
        run.say(f"captions, seed {seed}: reward and annotators prefer the better caption {told[-1]}, words {words[-1]}")
        proof.train(run, KIND, base, METHODS, reward, seed, measure=WORLD.measure, show=show)
    shown = statistics.fmean(right(str(s.output), s.hidden["scene"]) for s in WORLD.demonstrations(400, 13_000))
    model, people = (statistics.fmean(x) for x in zip(*told, strict=True))
    each = ", ".join(f"{name} {statistics.fmean(w[name] for w in words):.0%}" for name in WORDS)
    proof.note = (
        f"gold is of sampled captions, greedy of the most likely ones; demonstrations have a gold of {shown:.2f}; of "
        f"two captions of a new picture the reward model prefers the better one in {model:.0%} of cases, the "
        f"annotators it learned from in {people:.0%}; where one word alone is wrong it is right in {each} of cases"
    )
    proof.pictures.insert(0, gold_by_kl(proof.rows))
    return proof


def gallery(name: str, policy: VisionLanguagePolicy) -> str:
    """Six pictures with what the policy says of them: green where every word is right."""
    with drawing(2, 3, 4.6, 3.5) as (figure, axes, out):
        figure.suptitle(name, x=0.01, ha="left", fontsize=11.5, fontweight="bold")
        for axis, sample in zip(axes.flat, drawn(policy, 6, 1, 70_000).samples, strict=True):
            caption = spoken(sample)
            axis.imshow(sample.asked[0]["content"][0]["image"].permute(1, 2, 0).numpy(), interpolation="nearest")
            good = right(caption, sample.hidden["scene"]) == 1
            axis.set_title(caption, fontsize=6.5, fontweight="normal", pad=3, color=RIGHT if good else WRONG)
            axis.set_axis_off()
    return out[0]
