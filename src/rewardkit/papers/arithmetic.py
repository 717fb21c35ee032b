"""What recipes on world ``arithmetic`` share: a run of the loop, and figures of the policy that it leaves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from rewardkit.credit.base import Rule
from rewardkit.loops.online import online
from rewardkit.loops.prompts import PromptSet
from rewardkit.measures.masked import masked_mean
from rewardkit.measures.pass_at_k import pass_at_k
from rewardkit.objectives.base import Loss
from rewardkit.papers.recipe import Run
from rewardkit.policies.language import LanguagePolicy
from rewardkit.rewards.base import RewardBase
from rewardkit.training.learner import Learner
from rewardkit.worlds.arithmetic import Arithmetic

Figures = dict[str, Any]


def base(world: Arithmetic, run: Run) -> LanguagePolicy:
    """The world's base policy."""
    return world.base_policy(steps=run.size(2000, 2))


def train(
    run: Run,
    world: Arithmetic,
    policy: LanguagePolicy,
    reward: RewardBase,
    credit: Rule,
    objective: Callable[..., Loss],
    *,
    steps: int,
    lr: float,
    seen: Callable[[Any], None] = lambda turn: None,
    **options: Any,
) -> list[float]:
    """``steps`` turns of 8 chains with 8 replies each, in place.

    Args:
        options: of :func:`rewardkit.loops.online.online`. seen: called with every turn.

    Returns:
        the share of right replies, turn by turn.
    """
    prompts = PromptSet(world.prompts(run.size(192, 4), 50 + run.seed), seed=run.seed)
    given: dict[str, Any] = {
        "reference": "start",
        "batch": run.size(8, 2),
        "n": run.size(8, 2),
        "sampling": world.sampling,
    } | options
    shares = []
    for turn in online(
        Learner(policy, lr=lr), prompts, reward, credit, objective, steps=run.size(steps, 1), seed=run.seed, **given
    ):
        gold = turn.scores.parts.get("gold", turn.scores).outcome
        shares.append(float(gold.mean()) if gold is not None else float("nan"))
        seen(turn)
    return shares


def figures(run: Run, world: Arithmetic, policy: LanguagePolicy, shares: Sequence[float], *, k: int = 16) -> Figures:
    """Held-out figures of a policy, and what the run itself showed.

    Returns:
        ``gold`` (pass@1) and ``pass@k`` on held-out chains, ``entropy`` (nats a token), ``kl`` (nats a reply, to the
        start), ``speed`` (the mean share of right replies over all turns), ``reward`` (the same over the last fifth:
        what a person who tunes can see) and the curve.
    """
    n = run.size(2 * k, 2)
    rollout = policy.sample(world.prompts(run.size(48, 3), 9, test=True), n, sampling=world.sampling, seed=9)
    right = world.gold(rollout).outcome.view(-1, n)  # type: ignore[union-attr]
    with torch.no_grad():
        found = policy.evaluate(rollout, ("logps", "entropy"))
        start = policy.at("start").evaluate(rollout)["logps"]
    late = shares[-max(1, len(shares) // 5) :]
    return {
        "gold": float(right.mean()),
        "pass@k": float(pass_at_k(right, min(k, n)).mean()),
        "entropy": float(masked_mean(found["entropy"], rollout.mask).mean()),
        "kl": float(((found["logps"] - start) * rollout.mask).sum(-1).mean()),
        "speed": float(np.mean(shares)) if shares else float("nan"),
        "reward": float(np.mean(late)) if late else float("nan"),
        "share of right replies": list(shares),
    }
