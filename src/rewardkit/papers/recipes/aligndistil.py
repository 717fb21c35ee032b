"""AlignDistil: token-level RLHF as distillation of two preference-trained models, against DPO and PPO.

On world ``tokens``, 1,000 noisy comparisons train a policy by DPO and another one by DPO on the swapped pairs.
AlignDistil samples from its own policy and moves it, over the whole vocabulary at each position, towards the logits of
the first beyond those of the second, by a weight that follows how far the two are apart there; it is ``rounds`` with
one term. Against it: DPO itself, PPO on the contrastive reward of the same two models, one fixed weight for all
positions, and plain distillation of the DPO model, which is the usual mistake (weight 0). Each runs at two strengths,
and gold is read off all checkpoints within 1.5 nats a reply. AlignDistil and PPO see the same number of samples and
updates, and their mean reward on the way is compared. A numeric arm checks the identity of the two gradients. The
learning rate is chosen by annotators' preference. Left out: off-policy data, larger models, benchmarks. Five minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any

import torch

from rewardkit.evals.frontier import reward_at_kl
from rewardkit.loops.rounds import rounds
from rewardkit.measures.kl import exact_kl
from rewardkit.objectives.distillation import align_kl, aligndistil, extrapolated
from rewardkit.objectives.policy import exact_kl as distil
from rewardkit.objectives.policy import full_kl
from rewardkit.objectives.preference import dpo
from rewardkit.papers.fronts import Point, point
from rewardkit.papers.kit import comparisons, ppo, preference, preferred
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.policies.language import LanguagePolicy
from rewardkit.rewards.learned.implicit import ImplicitReward
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Judgement, Rollout
from rewardkit.worlds.tokens import LENGTH, Tokens

ROUNDS, EVERY, BETA, KL = 16, 4, 0.1, 1.5
Views = tuple[LanguagePolicy, LanguagePolicy]


def _world(run: Run) -> tuple[Tokens, LanguagePolicy]:
    world = Tokens(length=run.size(LENGTH, 2))
    return world, world.base(steps=run.size(300, 2))


def _pairs(run: Run) -> list[Judgement]:
    return comparisons(*_world(run), run.size(1000, 12), 10 + run.seed)


@cache
def _views(seed: int, smoke: bool) -> Views:
    """The DPO model and the reverse one, trained on swapped pairs."""
    run = Run(seed, smoke)
    pairs = _pairs(run)
    swapped = [Judgement(j.items, rank=j.rank[::-1], annotator=j.annotator) for j in pairs if j.rank is not None]
    tuned, reverse = (
        preference(_world(run)[1], p, partial(dpo, beta=BETA), seed, epochs=run.size(2.0, 0.1), lr=3e-4)
        for p in (pairs, swapped)
    )
    return tuned.keep("tuned"), reverse.keep("reverse")


def _figures(run: Run, runs: Iterable[tuple[LanguagePolicy, list[Point]]]) -> dict[str, Any]:
    """Gold within the KL, and the reward on the way: the mean over checkpoints and strengths."""
    world, start = _world(run)
    first = point(world, start, _reward(run), n=run.size(48, 1))
    every = [(policy, points) for policy, points in runs]
    points = [p for _, seen in every for p in seen]
    return {
        "gold within kl": reward_at_kl(
            [p["kl"] for p in points],
            [p["gold"] for p in points],
            min(KL, max([0.0, *(p["kl"] for p in points)])),
            start=first["gold"],
        ),
        "reward on the way": sum(p["proxy"] for p in points) / len(points),
        "preferred": sum(preferred(world, p, run.seed, n=run.size(32, 1)) for p, _ in every) / len(every),
        **{f"{k}s": [p[k] for p in points] for k in ("kl", "gold", "proxy")},
    }


def _reward(run: Run) -> ImplicitReward:
    """The contrastive reward: the DPO model against the reverse one."""
    tuned, reverse = _views(run.seed, run.smoke)
    return ImplicitReward(tuned, reverse, beta=BETA)


def distilled(run: Run, terms: Callable[[Views, float, Rollout], list[Term]], strengths: tuple[float, ...]) -> Any:
    """Rounds of sampling and two updates, as many as PPO's, for each strength."""

    def one(strength: float) -> tuple[LanguagePolicy, list[Point]]:
        world, policy = _world(run)
        learner, points = Learner(policy, lr=run.point.get("lr", 1e-3)), []

        def collect(now: Any, number: int) -> Rollout:
            return now.sample(world.prompts, run.size(16, 2), sampling=world.sampling, seed=1000 * run.seed + number)

        for found in rounds(
            learner, collect, terms=partial(terms, _views(run.seed, run.smoke), strength), reference=None,
            rounds=run.size(ROUNDS, 1), epochs=2, batch=len(world.prompts), seed=run.seed,
        ):  # fmt: skip
            if found.round % run.size(EVERY, 1) == 0:
                points.append(point(world, policy, _reward(run), n=run.size(32, 1)))
        return policy, points

    return _figures(run, map(one, run.size(strengths, strengths[:1])))


def adaptive(views: Views, scale: float, rows: Rollout) -> list[Term]:
    """The weight follows how far the two models are apart at a position."""
    return [Term(rows, aligndistil, reduce="sequences", want=(align_kl(*views, beta=BETA, scale=scale),))]


def fixed(views: Views, weight: float, rows: Rollout) -> list[Term]:
    """One weight everywhere."""
    return [Term(rows, aligndistil, reduce="sequences", want=(align_kl(*views, beta=BETA, weight=weight),))]


def plain(views: Views, price: float, rows: Rollout) -> list[Term]:
    """Distillation of the DPO model alone."""
    return [Term(rows, distil, coef=price, reduce="sequences", want=(full_kl(views[0]),))]


def by_ppo(run: Run) -> dict[str, Any]:
    """PPO on the contrastive reward at two KL prices, two passes and a critic's updates a turn."""

    def one(beta: float) -> tuple[LanguagePolicy, list[Point]]:
        (world, policy), points = _world(run), []
        steps, n = run.size((ROUNDS, 16), (1, 2))
        lr = run.point.get("lr", 1e-3)
        for turn in ppo(world, policy, _reward(run), run.seed, steps=steps, beta=beta, lr=lr, n=n):
            if turn.step % run.size(EVERY, 1) == 0:
                points.append(point(world, policy, _reward(run), n=run.size(32, 1)))
        return policy, points

    return _figures(run, map(one, run.size((0.02, 0.1), (0.02,))))


def direct(run: Run) -> dict[str, Any]:
    """DPO at two prices, after a half to two walks over the pairs: as many checkpoints to choose from as the others."""

    def one(beta: float) -> tuple[LanguagePolicy, list[Point]]:
        points = []
        for epochs in run.size((0.5, 1.0, 1.5, 2.0), (0.1,)):
            world, policy = _world(run)
            lr = run.point.get("lr", 1e-3)
            policy = preference(policy, _pairs(run), partial(dpo, beta=beta), run.seed, epochs=epochs, lr=lr)
            points.append(point(world, policy, _reward(run), n=run.size(32, 1)))
        return policy, points

    return _figures(run, map(one, run.size((0.1, 0.5), (0.1,))))


def numeric(run: Run) -> dict[str, float]:
    """The largest difference of the two gradients over 100 random softmax policies."""
    chance, worst = torch.Generator().manual_seed(run.seed), 0.0
    for _ in range(run.size(100, 5)):
        own, tuned, ref = torch.randn(3, 12, generator=chance, dtype=torch.double).unbind()
        own, price = own.clone().requires_grad_(), float(torch.rand((), generator=chance)) + 0.05
        logp, ratio = own.log_softmax(-1), tuned.log_softmax(-1) - ref.log_softmax(-1)
        rlhf = price * exact_kl(own, ref) - (logp.exp() * BETA * ratio).sum()
        target = extrapolated(tuned, ref, BETA / price - 1)  # w z_tuned + (1 - w) z_ref
        one, two = (torch.autograd.grad(x, own)[0] for x in (rlhf, price * exact_kl(own, target)))
        worst = max(worst, float((one - two).abs().max()))
    return {"gradient gap": worst, "preferred": 0.0}


RECIPE = Recipe(
    slug="aligndistil",
    arms={
        "aligndistil": Arm(partial(distilled, terms=adaptive, strengths=(3.0, 15.0))),
        "dpo": Arm(direct),
        "ppo": Arm(by_ppo),
        "fixed weight": Arm(partial(distilled, terms=fixed, strengths=(1.0, 4.0))),
        "plain distillation": Arm(partial(distilled, terms=plain, strengths=(0.1, 1.0))),
        "numeric": Arm(numeric, tuned=False),
    },
    expectations=[
        Expect("the two gradients are one", "gradient gap", "numeric", high=1e-6, every=True),
        Expect("more gold than DPO at equal KL", "gold within kl", "aligndistil", "dpo", low=0),
        Expect("more reward on the way than PPO at equal updates", "reward on the way", "aligndistil", "ppo", low=0),
        Expect("the adaptive weight beats a fixed one", "gold within kl", "aligndistil", "fixed weight", low=0),
        Expect("it goes beyond the DPO model", "reward on the way", "aligndistil", "plain distillation", low=0),
    ],
    grid=({"lr": 3e-4}, {"lr": 1e-3}),
    tune="preferred",
    seeds=range(3),
    scale="a 20,000-weight model on short strings, 16 rounds of 96 sampled replies",
)
