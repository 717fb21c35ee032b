"""Ensembles of reward models under optimisation: what they mend, and what they share.

On world ``tokens``: three base models are trained from scratch on different demonstrations with different seeds; on
each, three reward models that differ in head and order of data alone learn the same 500 comparisons, in which a
flourish comes with quality. A single model, a fine-tune ensemble (one base, three seeds) and a pre-train ensemble
(three bases) are aggregated by the mean after centring each member on the base model's replies; the minimum is a
control. Each drives best-of-n to n = 256, and PPO. Gold, the disagreement of held-out reward models and the rate of
the flourish are read along the way. A three by three grid in place of five by five; median and mean minus deviation
are left out. It trains
nine reward models and three policies a seed: about eight minutes on two cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial

import torch

from rewardkit.evals.pairwise import pairwise
from rewardkit.evals.transfer import cross_rm_transfer
from rewardkit.guidance.best_of_n import best_of_n_curve
from rewardkit.papers.kit import comparisons, ppo, preferred, reward_model
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.policies.language import LanguagePolicy
from rewardkit.protocols import Reward
from rewardkit.rewards.learned.scalar import ScalarReward
from rewardkit.rewards.ops import ensemble
from rewardkit.types import Rollout
from rewardkit.worlds.tokens import FLOURISH, LENGTH, Tokens

NS = (1, 4, 16, 64, 256)


def _world(run: Run) -> Tokens:
    return Tokens(marker=0.9, length=run.size(LENGTH, 2))


def _base(run: Run, seed: int = 0) -> LanguagePolicy:
    return _world(run).base(seed, steps=run.size(300, 2))


def _members(run: Run, wanted: Sequence[tuple[int, int]]) -> list[ScalarReward]:
    """Reward models by (pre-training seed, fine-tuning seed), on the comparisons of this run's seed."""
    return [_member(run.seed, run.smoke, p, f) for p, f in wanted]


@cache
def _member(seed: int, smoke: bool, p: int, f: int) -> ScalarReward:
    run = Run(seed, smoke)
    pairs = comparisons(_world(run), _base(run), run.size(500, 12), 10 + seed)
    name, own = f"pre {p} fine {f}", 1000 * seed + 10 * p + f
    return reward_model(_base(run, p), pairs, own, epochs=run.size(4.0, 0.1), name=name)


def _centre(run: Run, members: Sequence[ScalarReward]) -> list[float]:
    """Each member's mean on the base model's replies: its zero."""
    rollout = _world(run).draw(_base(run), run.size(32, 2), 70_000 + run.seed)
    return [float(m(rollout).outcome.mean()) for m in members]  # type: ignore[union-attr]


def _reward(run: Run, kind: str) -> tuple[Reward, list[ScalarReward]]:
    wanted = {
        "single": [(0, 0)],
        "fine-tune": [(0, 0), (0, 1), (0, 2)],
        "pre-train": [(0, 0), (1, 0), (2, 0)],
        "pre-train min": [(0, 0), (1, 0), (2, 0)],
    }[kind]
    members = _members(run, wanted)
    if len(members) == 1:
        return members[0], members
    return ensemble(members, "min" if kind.endswith("min") else "mean", centre=_centre(run, members)), members


def optimise(run: Run, kind: str) -> dict[str, float | list[float]]:
    """Best-of-n and PPO against one aggregate."""
    start = _base(run)
    reward, members = _reward(run, kind)
    ns = run.size(NS, (1, 4))
    pool = _world(run).draw(start, run.size(512, 4), 80_000 + run.seed)
    scores, gold = reward(pool).outcome, _world(run).gold(pool).outcome
    if scores is None or gold is None:
        raise ValueError("best-of-n needs outcomes")
    shape = (len(_world(run).prompts), -1)
    flourish = torch.tensor([float(s.output.count(FLOURISH)) for s in pool.samples])
    length = torch.tensor([float(len(s.output)) for s in pool.samples])
    curve = {
        name: best_of_n_curve(scores.reshape(shape), v.reshape(shape), ns).mean(0).tolist()
        for name, v in (("gold", gold), ("flourish", flourish), ("length", length))
    }
    policy = _base(run)
    steps, n = run.size((60, 16), (1, 2))
    for _ in ppo(_world(run), policy, reward, run.seed, steps=steps, beta=0.02, lr=run.point.get("lr", 1e-3), n=n):
        pass
    after = _world(run).measure(policy, n=run.size(64, 1))
    held_out = _members(run, [(1, 1), (2, 2)])
    before = _world(run).draw(start, run.size(32, 2), 90_000 + run.seed)
    optimised = _world(run).draw(policy, run.size(32, 2), 91_000 + run.seed)
    judged = comparisons(_world(run), start, run.size(500, 12), 2010 + run.seed)
    judges = {m.name: m for m in (members[0], *held_out)}
    transfer = cross_rm_transfer(judges, {members[0].name: optimised}, before)
    return {
        "gold_best_of_256": curve["gold"][-1],
        "flourish_gain": curve["flourish"][-1] - curve["flourish"][0],
        "length_gain": curve["length"][-1] - curve["length"][0],
        "gold_ppo": after["gold"],
        "kl_ppo": after["kl"],
        "flourish_ppo_gain": _flourish(optimised) - _flourish(before),
        "not_transferred": transfer.gap[members[0].name],
        "accuracy": pairwise(reward, judged).accuracy.value,
        "preferred": preferred(_world(run), policy, run.seed, n=run.size(32, 1)),
        "gold by n": curve["gold"],
        "flourish by n": curve["flourish"],
        "length by n": curve["length"],
    }


def _flourish(rollout: Rollout) -> float:
    return sum(s.output.count(FLOURISH) for s in rollout.samples) / len(rollout)


KINDS = ("pre-train", "fine-tune", "single", "pre-train min")
RECIPE = Recipe(
    slug="helping_or_herding",
    arms={kind: Arm(partial(optimise, kind=kind)) for kind in KINDS},
    expectations=[
        Expect(
            "best of 256: a pre-train ensemble has more gold than a fine-tune ensemble",
            "gold_best_of_256",
            "pre-train",
            "fine-tune",
            low=0,
        ),
        Expect(
            "best of 256: a fine-tune ensemble has more gold than a single model",
            "gold_best_of_256",
            "fine-tune",
            "single",
            low=0,
        ),
        Expect("PPO: a pre-train ensemble has more gold than a single model", "gold_ppo", "pre-train", "single", low=0),
        Expect("a single model's gain does not transfer wholly to others", "not_transferred", "single", low=0),
        Expect("the flourish still rises under the pre-train ensemble", "flourish_gain", "pre-train", low=0),
        Expect("the flourish still rises under the fine-tune ensemble", "flourish_gain", "fine-tune", low=0),
    ],
    grid=({"lr": 3e-4}, {"lr": 1e-3}),
    tune="preferred",
    seeds=range(8),
    scale="a 3 by 3 grid of reward models of 20,000 weights, n to 256, short strings",
)
