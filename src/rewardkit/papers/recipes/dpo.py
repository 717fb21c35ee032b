"""DPO against PPO and best-of-n, at equal KL, and its closed form on a bandit.

Exact part: on bandits whose every pair carries its Bradley-Terry probability (infinitely many comparisons), DPO must
reach ``pi_ref * exp(r / beta) / Z``. Frontier: on world ``tokens``, 1,000 noisy comparisons of the base model's own
replies serve DPO directly, and PPO and best-of-n through a reward model; each method runs at three strengths (beta,
or n) and the gold score is read off its frontier within 1.5 nats a reply. A control optimises gold itself by PPO. The
learning rate of each arm is chosen from the same two by annotators' preference over the base model, not by gold. Left
out: TL;DR, sampling temperatures, larger models; the numbers are of a model of some twenty thousand weights. It
trains some 100 small policies: about ten minutes on two cores.
"""

from __future__ import annotations

from functools import cache, partial

import torch

from rewardkit.evals.closed_forms import kl
from rewardkit.evals.frontier import reward_at_kl
from rewardkit.evals.pairwise import pairwise
from rewardkit.guidance.best_of_n import best_of_n_curve, best_of_n_kl
from rewardkit.needs import Column
from rewardkit.objectives.preference import dpo
from rewardkit.papers.kit import comparisons, ppo, preference, preferred, reward_model
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.policies.language import LanguagePolicy
from rewardkit.rewards.learned.implicit import ImplicitReward
from rewardkit.rewards.learned.scalar import ScalarReward
from rewardkit.training.fit import fit
from rewardkit.training.learner import Learner
from rewardkit.training.reference import attach_reference
from rewardkit.types import Judgement, Rollout, Sample
from rewardkit.worlds.tables import Bandits
from rewardkit.worlds.tokens import LENGTH, Tokens

KL = 1.5
"""Nats a reply within which the methods are compared."""


def bandit(run: Run) -> dict[str, float]:
    """DPO on exact preferences: KL from the policy that it reaches to the closed form."""
    world, beta = Bandits(4, 6, seed=run.seed), 0.5
    policy, samples, flips = world.policy(), [], []
    for judgement in world.comparisons():
        samples += [Sample(s.prompt, s.output) for s in judgement.items]
        flips += [judgement.p[1]] * 2 if judgement.p else [0.0, 0.0]
    rows = policy.encode(samples)
    pairs = torch.arange(len(samples)) // 2
    data = Rollout(
        samples,
        rows.mask,
        pairs,
        inputs=rows.inputs,
        tensors={"rank": torch.arange(len(samples)) % 2, "flip": torch.tensor(flips, dtype=torch.float64)},
    )
    data = attach_reference(data, policy.at("start"))
    learner = Learner(policy, lr=0.03, schedule="cosine", clip=None)
    objective = partial(dpo, beta=beta, smoothing=Column("flip", of="better"))
    for _ in fit(learner, data, objective, epochs=run.size(1500, 5), batch=len(samples)):
        pass
    optimum = world.regularised(beta)["log_probs"]
    return {"kl_to_optimum": float(kl(world.log_probs(policy), optimum).max()), "preferred": 0.0}


def _setting(run: Run) -> tuple[Tokens, LanguagePolicy, list[Judgement], list[Judgement]]:
    world = Tokens(length=run.size(LENGTH, 2))
    base = world.base(steps=run.size(300, 2))
    n = run.size(1000, 12)
    return world, base, comparisons(world, base, n, 10 + run.seed), comparisons(world, base, n, 1010 + run.seed)


@cache
def _model(seed: int, smoke: bool) -> ScalarReward:
    run = Run(seed, smoke)
    _, base, pairs, _ = _setting(run)
    return reward_model(base, pairs, seed, epochs=run.size(3.0, 0.1))


def _frontier(
    run: Run, world: Tokens, start: LanguagePolicy, policies: list[LanguagePolicy]
) -> dict[str, float | list[float]]:
    n = run.size(64, 1)
    found = [world.measure(p, n=n) for p in policies]
    kls, golds = [f["kl"] for f in found], [f["gold"] for f in found]
    at = min(KL, max(0.0, *kls))  # a method that moves less is read at its largest KL
    return {
        "gold_within_kl": reward_at_kl(kls, golds, at, start=world.measure(start, n=n)["gold"]),
        "preferred": sum(preferred(world, p, run.seed, n=run.size(32, 1)) for p in policies) / len(policies),
        "kls": kls,
        "golds": golds,
    }


def direct(run: Run) -> dict[str, float | list[float]]:
    """DPO at three betas."""
    world, base, pairs, held_out = _setting(run)
    policies = []
    for beta in run.size((0.05, 0.2, 0.8), (0.2,)):
        policy = world.base(steps=run.size(300, 2))
        objective = partial(dpo, beta=beta)
        policies.append(
            preference(policy, pairs, objective, run.seed, epochs=run.size(3.0, 0.1), lr=run.point.get("lr", 1e-3))
        )
    implicit = ImplicitReward(policies[-1], base.at("start"))
    return {"implicit_accuracy": pairwise(implicit, held_out).accuracy.value, **_frontier(run, world, base, policies)}


def _ppo(run: Run, *, gold: bool) -> dict[str, float | list[float]]:
    world, base, _, held_out = _setting(run)
    model = _model(run.seed, run.smoke)
    policies = []
    for beta in run.size((0.05, 0.2, 0.8), (0.2,)):
        policy = world.base(steps=run.size(300, 2))
        reward = world.gold if gold else model
        steps, n = run.size((30, 16), (1, 2))
        for _ in ppo(world, policy, reward, run.seed, steps=steps, beta=beta, lr=run.point.get("lr", 1e-3), n=n):
            pass
        policies.append(policy)
    return {"explicit_accuracy": pairwise(model, held_out).accuracy.value, **_frontier(run, world, base, policies)}


def best_of_n(run: Run) -> dict[str, float | list[float]]:
    """Best-of-n by the reward model; the KL is the closed-form bound."""
    world, base, _, held_out = _setting(run)
    model = _model(run.seed, run.smoke)
    pool = world.draw(base, run.size(128, 16), run.seed)
    ns = (1, 2, 4, 8, 16)
    scores, gold = model(pool).outcome, world.gold(pool).outcome
    if scores is None or gold is None:
        raise ValueError("best-of-n needs outcomes")
    shape = (len(world.prompts), -1)
    golds = best_of_n_curve(scores.reshape(shape), gold.reshape(shape), ns).mean(0).tolist()
    kls = [best_of_n_kl(n) for n in ns]
    return {
        "gold_within_kl": reward_at_kl(kls, golds, KL, start=golds[0]),
        "explicit_accuracy": pairwise(model, held_out).accuracy.value,
        "kls": kls,
        "golds": golds,
    }


RECIPE = Recipe(
    slug="dpo",
    arms={
        "dpo": Arm(direct),
        "ppo": Arm(partial(_ppo, gold=False)),
        "ppo on gold": Arm(partial(_ppo, gold=True)),
        "best-of-n": Arm(best_of_n, tuned=False),
        "bandit": Arm(bandit, tuned=False),
    },
    expectations=[
        Expect(
            "DPO on exact preferences reaches the closed form (KL)", "kl_to_optimum", "bandit", high=1e-3, every=True
        ),
        Expect("DPO has more gold than PPO on a learned reward at equal KL", "gold_within_kl", "dpo", "ppo", low=0),
        Expect("the implicit reward orders held-out pairs", "implicit_accuracy", "dpo", low=0.5),
        Expect(
            "the implicit reward is within 0.05 of a reward model's accuracy",
            "implicit_accuracy",
            "dpo",
            "ppo",
            low=-0.05,
            over_figure="explicit_accuracy",
        ),
    ],
    grid=({"lr": 3e-4}, {"lr": 1e-3}),
    tune="preferred",
    seeds=range(8),
    scale="a 20,000-weight model on short strings, 1,000 simulated comparisons",
)
