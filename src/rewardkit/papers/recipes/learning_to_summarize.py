"""SFT, a reward model, PPO against it: is a small model so trained better than a larger one that imitates?

On world ``tokens`` with simulated annotators (noise, and a liking for length that gold does not share).
Demonstrations train a small and a ten times larger model; the small one's replies are compared by annotators; reward
models from 200 and 2,000 comparisons begin as the SFT model, PPO's critic begins as the reward model, the KL to the
SFT model is taken off token by token. Win rates are by gold against the demonstrations' own replies. A long run at a
small KL coefficient gives the over-optimisation curve for both amounts of data; best-of-n by the reward model is set
beside best-of-n by overlap with a demonstration (the part that ROUGE plays). The learning rate is chosen by
annotators' preference. Left out: real text, transfer to news, labelling in several rounds, four values of beta (one
short and one long run in their place). About eight minutes on two cores.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from rewardkit.evals.frontier import overoptimization_curve
from rewardkit.guidance.best_of_n import best_of_n_curve
from rewardkit.papers.kit import comparisons, ppo, preferred, reward_model
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.policies.language import LanguagePolicy
from rewardkit.rewards.learned.scalar import ScalarReward
from rewardkit.types import Rollout
from rewardkit.worlds.tokens import LENGTH, Tokens, gold_score

N = 16


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
    wins = []
    for s in rollout.samples:
        mine = gold_score(s.prompt, s.output, ended=s.ended == "done")
        other = pool[s.prompt][int(rng.integers(len(pool[s.prompt])))]
        wins.append(1.0 if mine > other else 0.5 if mine == other else 0.0)
    return float(np.mean(wins))


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
    """A long run at a small KL coefficient: proxy, gold and KL of every turn, smoothed over five."""
    world = _world(run)
    model = _model(run.seed, run.smoke, pairs)
    policy = _base(run, world)
    steps, n = run.size((100, 16), (2, 2))
    kl, proxy, gold = [], [], []
    for step in ppo(world, policy, model, run.seed, steps=steps, beta=0.01, lr=1e-3, n=n, critic_from=model):
        kl.append(step.metrics["kl/k1_response"])
        proxy.append(step.metrics["reward"])
        gold.append(_gold(world, step.rollout))
    kl, proxy, gold = (
        [float(v) for v in np.convolve(x, np.ones(w) / w, "valid")] for w in (min(5, steps),) for x in (kl, proxy, gold)
    )
    if len(gold) < 2:
        kl, proxy, gold = kl * 2, proxy * 2, gold * 2
    found = overoptimization_curve(kl, proxy, gold)
    return {
        "drop": found.drop,
        "rise": found.gold_peak - found.gold_start,
        "kl_at_peak": found.kl_at_peak,
        "proxy_after_peak": found.proxy_after_peak,
        "kl": kl,
        "proxy": proxy,
        "gold": gold,
    }


def _gold(world: Tokens, rollout: Rollout) -> float:
    outcome = world.gold(rollout).outcome
    return float("nan") if outcome is None else float(outcome.mean())


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
    scores, gold = model(pool).outcome, world.gold(pool).outcome
    if scores is None or gold is None:
        raise ValueError("best-of-n needs outcomes")
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
    scale="a 20,000-weight model on short strings, simulated annotators",
)
