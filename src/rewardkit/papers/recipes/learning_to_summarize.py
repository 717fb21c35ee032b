"""SFT, a reward model, PPO against it: is a small model so trained better than a larger one that imitates?

On world ``tokens`` with simulated annotators (noise, and a liking for length that gold does not share).
Demonstrations train a small and a ten times larger model; the small one's replies are compared by annotators; reward
models from 200 and 2,000 comparisons begin as the SFT model, PPO's critic begins as the reward model, the KL to the
SFT model is taken off token by token. Win rates are by gold against the demonstrations' own replies. A long run at a
small KL coefficient gives the over-optimisation curve for both amounts of data: the peak of gold is located by one half
of the replies, its height read off the other half, and counted as a peak where gold then falls beyond noise. Best-of-n
by the reward model is set beside best-of-n by overlap with a demonstration (the part that ROUGE plays). The learning
rate is chosen by annotators' preference. Left out: real text, transfer to news, labelling in several rounds, four
values of beta (one short and one long run in their place). About eight minutes on two cores.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from torch import Tensor

from rewardkit.evals.frontier import overoptimization_curve
from rewardkit.evals.overoptimization import outcomes
from rewardkit.guidance.best_of_n import best_of_n_curve
from rewardkit.measures.masked import masked_sum
from rewardkit.measures.pairs import wins
from rewardkit.papers.kit import comparisons, ppo, preferred, reward_model
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.policies.language import LanguagePolicy
from rewardkit.rewards.learned.scalar import ScalarReward
from rewardkit.worlds.tokens import LENGTH, Tokens, gold_score

N = 16
WIDTH = 10
"""Turns that a point of the long runs' curves is the mean of: 480 replies in each half."""


def _world(run: Run) -> Tokens:
    return Tokens(length=run.size(LENGTH, 2))


def _base(run: Run, world: Tokens, *, large: bool = False) -> LanguagePolicy:
    return world.base(steps=run.size(300, 2), large=large)


def _win(run: Run, world: Tokens, policy: LanguagePolicy) -> float:
    """Gold win rate against demonstrations of the same prompt, ties half."""
    rollout = world.draw(policy, run.size(64, 1), 40_000 + run.seed)
    references = world.demonstrations(run.size(2000, 60), 50_000 + run.seed)
    pool = {p: [gold_score(s.prompt, s.output) for s in references if s.prompt == p] for p in world.prompts}
    rng = np.random.default_rng(run.seed)
    other = torch.tensor([rng.choice(pool[s.prompt]) for s in rollout.samples])
    return float(wins(outcomes(world.gold, rollout), other).mean())


@cache
def _model(seed: int, smoke: bool, pairs: int) -> ScalarReward:
    run = Run(seed, smoke)
    world = _world(run)
    base = _base(run, world)
    judged = comparisons(world, base, run.size(pairs, 12), 10 + seed)
    return reward_model(base, judged, seed, epochs=run.size(3.0 if pairs > 500 else 8.0, 0.1))


def rlhf(run: Run) -> dict[str, float]:
    """The three stages, with a moderate KL coefficient."""
    world = _world(run)
    model = _model(run.seed, run.smoke, 2000)
    policy = _base(run, world)
    steps, n = run.size((40, 16), (1, 2))
    for _ in ppo(
        world, policy, model, run.seed, steps=steps, beta=0.2, lr=run.point.get("lr", 1e-3), n=n, critic_from=model
    ):
        pass
    found = world.measure(policy, model, n=run.size(64, 1))
    return {
        **found,
        "win_reference": _win(run, world, policy),
        "preferred": preferred(world, policy, run.seed, n=run.size(32, 1)),
    }


def imitation(run: Run, *, large: bool) -> dict[str, float]:
    """Imitation alone."""
    world = _world(run)
    return {"win_reference": _win(run, world, _base(run, world, large=large))}


def overoptimised(run: Run, pairs: int) -> dict[str, float | list[float]]:
    """A long run at a small KL coefficient: proxy, gold and KL along the way."""
    world = _world(run)
    model = _model(run.seed, run.smoke, pairs)
    policy = _base(run, world)
    steps, n = run.size((100, 16), (2, 2))
    turns = []
    for step in ppo(world, policy, model, run.seed, steps=steps, beta=0.01, lr=1e-3, n=n, critic_from=model):
        rollout = step.rollout
        kl = masked_sum(rollout["old_logps"] - rollout["start_logps"], rollout.mask)
        turns.append(torch.stack([kl, outcomes(model, rollout), outcomes(world.gold, rollout)]))
    return rise_and_fall(torch.stack(turns, 1), width=run.size(WIDTH, 1))


def rise_and_fall(replies: Tensor, width: int) -> dict[str, float | list[float]]:
    """Where gold peaked, and how far it rose before and fell after.

    The peak is located by one half of each turn's replies and everything is read off the other half: the largest of
    many noisy points is partly luck, and a gold reward that stays flat would seem to rise and fall.

    Args:
        replies: ``[3, K, B]``, KL (nats), proxy and gold of each of B replies in K turns, those of a prompt together.
        width: turns that a point of the curves is the mean of.

    Returns:
        ``drop`` and ``rise`` of gold; ``kl_at_peak`` and ``proxy_after_peak``, NaN where gold did not fall by more
        than 1.96 standard errors; the curves.
    """
    smooth = replies.unfold(1, width, 1).mean(-1)
    located_by, read = smooth[2, :, 0::2].mean(-1), smooth[:, :, 1::2].mean(-1)
    kl, proxy, gold = read.tolist()
    counted = replies[2, :, 1::2]
    error = (2 * float(counted.var(-1).mean()) / (width * counted.shape[-1])) ** 0.5
    found = overoptimization_curve(kl, proxy, gold, located_by=located_by.tolist(), tolerance=1.96 * error)
    return {
        "drop": found.drop,
        "rise": found.gold_peak - found.gold_start,
        "kl_at_peak": found.kl_at_peak if found.peaked else math.nan,
        "proxy_after_peak": found.proxy_after_peak if found.peaked else math.nan,
        "kl": kl,
        "proxy": proxy,
        "gold": gold,
    }


def best_of(run: Run) -> dict[str, float]:
    """Best of 16 of the SFT model, by the reward model and by overlap with a demonstration."""
    world = _world(run)
    base = _base(run, world)
    model = _model(run.seed, run.smoke, 2000)
    pool = world.draw(base, run.size(64, N), run.seed)
    rng = np.random.default_rng(run.seed)
    references = world.demonstrations(run.size(2000, 60), 60_000 + run.seed)
    overlaps = []
    for s in pool.samples:
        own = [r.output for r in references if r.prompt == s.prompt]
        overlaps.append(_overlap(s.output, own[int(rng.integers(len(own)))]))
    scores, gold = outcomes(model, pool), outcomes(world.gold, pool)
    shape = (len(world.prompts), -1)
    by_overlap = scores.new_tensor(overlaps)
    return {
        "gold_by_model": float(best_of_n_curve(scores.reshape(shape), gold.reshape(shape), [N]).mean()),
        "gold_by_overlap": float(best_of_n_curve(by_overlap.reshape(shape), gold.reshape(shape), [N]).mean()),
    }


def _overlap(text: str, reference: str) -> float:
    """F1 of characters, counted with multiplicity: ROUGE-1."""
    both = sum(min(text.count(c), reference.count(c)) for c in set(text))
    return 2 * both / max(1, len(text) + len(reference))


RECIPE = Recipe(
    slug="learning_to_summarize",
    arms={
        "rlhf": Arm(rlhf),
        "sft": Arm(lambda run: imitation(run, large=False), tuned=False),
        "sft ten times larger": Arm(lambda run: imitation(run, large=True), tuned=False),
        "long run, 2,000 comparisons": Arm(lambda run: overoptimised(run, 2000), tuned=False),
        "long run, 200 comparisons": Arm(lambda run: overoptimised(run, 200), tuned=False),
        "best of 16": Arm(best_of, tuned=False),
    },
    expectations=[
        Expect(
            "RLHF wins more against references than a ten times larger imitator",
            "win_reference",
            "rlhf",
            "sft ten times larger",
            low=0,
        ),
        Expect("RLHF wins more against references than its own start", "win_reference", "rlhf", "sft", low=0),
        Expect("gold falls after its peak, 200 comparisons", "drop", "long run, 200 comparisons", low=0.1),
        Expect("meanwhile the proxy still rises", "proxy_after_peak", "long run, 200 comparisons", low=0),
        Expect("gold rises first", "rise", "long run, 2,000 comparisons", low=0.1),
        Expect(
            "more comparisons: the peak comes at a larger KL",
            "kl_at_peak",
            "long run, 2,000 comparisons",
            "long run, 200 comparisons",
            low=0,
        ),
        Expect(
            "best of 16 by the reward model has more gold than by overlap",
            "gold_by_model",
            "best of 16",
            "best of 16",
            low=0,
            over_figure="gold_by_overlap",
        ),
    ],
    grid=({"lr": 3e-4}, {"lr": 1e-3}),
    tune="preferred",
    seeds=range(8),
    scale="a 20,000-weight model on short strings, simulated annotators",
)
