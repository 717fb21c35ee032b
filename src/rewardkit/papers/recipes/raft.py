"""RAFT against PPO and imitation, at equal numbers of sampled replies.

On world ``tokens`` with a reward model from 1,000 noisy comparisons. RAFT is ``rounds`` with ``sft`` on what a
best-of-K policy gives, K = 4 and 16, ranked within each prompt, every round sampled afresh; PPO samples as many
replies in all (3,840). Gold and proxy reward, KL, perplexity of the demonstrations and the share of different replies
are measured. The learning rate is chosen by annotators' preference. Left out: images, the KL-penalised ranking, the
reward's variance over seeds, and the distillation check of a single round. About five minutes on two cores.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np
import torch

from rewardkit.guidance.best_of_n import best_of_n
from rewardkit.loops.rounds import rounds
from rewardkit.objectives.imitation import sft
from rewardkit.papers.kit import comparisons, ppo, preferred, reward_model
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.policies.language import LanguagePolicy
from rewardkit.rewards.learned.scalar import ScalarReward
from rewardkit.training.learner import Learner
from rewardkit.types import Rollout
from rewardkit.worlds.tokens import LENGTH, Tokens


def _world(run: Run) -> Tokens:
    return Tokens(length=run.size(LENGTH, 2))


ROUNDS, REPLIES = 8, 3840


def _setting(run: Run) -> tuple[LanguagePolicy, ScalarReward]:
    return _world(run).base(steps=run.size(300, 2)), _model(run.seed, run.smoke)


@cache
def _model(seed: int, smoke: bool) -> ScalarReward:
    run = Run(seed, smoke)
    base = _world(run).base(steps=run.size(300, 2))
    pairs = comparisons(_world(run), base, run.size(1000, 12), 10 + seed)
    return reward_model(base, pairs, seed, epochs=run.size(3.0, 0.1))


def _figures(run: Run, policy: LanguagePolicy, model: ScalarReward) -> dict[str, float]:
    demonstrations = policy.encode(_world(run).demonstrations(run.size(500, 4), 60_000))
    with torch.no_grad():
        logps = policy.evaluate(demonstrations)["logps"]
    nats = float((logps * demonstrations.mask).sum() / demonstrations.mask.sum())
    return {
        **_world(run).measure(policy, model, n=run.size(64, 1)),
        "perplexity": float(np.exp(-nats)),
        "preferred": preferred(_world(run), policy, run.seed, n=run.size(32, 1)),
    }


def raft(run: Run, k: int) -> dict[str, Any]:
    """Rounds of best-of-k and imitation; four passes over what was kept."""
    policy, model = _setting(run)
    count = run.size(ROUNDS, 1)
    each = run.size(REPLIES // ROUNDS // k // len(_world(run).prompts), 1)

    def collect(now: Any, number: int) -> Rollout:
        chooser = best_of_n(now, model, run.size(k, 2))
        return chooser.sample(_world(run).prompts, each, sampling=_world(run).sampling, seed=1000 * run.seed + number)

    proxies = []
    learner = Learner(policy, lr=run.point.get("lr", 1e-3))
    turns = rounds(learner, collect, sft, reference=None, rounds=count, epochs=run.size(4, 1), batch=16, seed=run.seed)
    for _ in turns:
        proxies.append(_world(run).measure(policy, model, n=run.size(32, 1))["proxy"])
    slope = float(np.polyfit(range(len(proxies)), proxies, 1)[0]) if len(proxies) > 1 else 0.0
    return {**_figures(run, policy, model), "slope": slope, "proxy by round": proxies}


def by_ppo(run: Run) -> dict[str, float]:
    """PPO with as many sampled replies."""
    policy, model = _setting(run)
    n = run.size(16, 2)
    steps = run.size(REPLIES // (n * len(_world(run).prompts)), 1)
    for _ in ppo(_world(run), policy, model, run.seed, steps=steps, beta=0.1, lr=run.point.get("lr", 1e-3), n=n):
        pass
    return _figures(run, policy, model)


def imitation(run: Run) -> dict[str, float]:
    """The start."""
    return _figures(run, *_setting(run))


RECIPE = Recipe(
    slug="raft",
    arms={
        "raft, K=16": Arm(partial(raft, k=16)),
        "raft, K=4": Arm(partial(raft, k=4)),
        "ppo": Arm(by_ppo),
        "sft": Arm(imitation, tuned=False),
    },
    expectations=[
        Expect("proxy reward rises over the rounds, K=4", "slope", "raft, K=4", low=0),
        Expect("proxy reward rises over the rounds, K=16", "slope", "raft, K=16", low=0),
        Expect("a larger K ends with more proxy reward", "proxy", "raft, K=16", "raft, K=4", low=0),
        Expect("RAFT has at least PPO's proxy reward, to 0.1", "proxy", "raft, K=16", "ppo", low=-0.1),
        Expect("RAFT has more gold than its start", "gold", "raft, K=16", "sft", low=0),
        Expect("RAFT keeps a lower perplexity of demonstrations than PPO", "perplexity", "raft, K=16", "ppo", high=0),
    ],
    grid=({"lr": 1e-4}, {"lr": 3e-4}, {"lr": 1e-3}),
    tune="preferred",
    seeds=range(8),
    scale="a 20,000-weight model on short strings, 3,840 sampled replies an arm",
)
