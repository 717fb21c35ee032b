"""Held-out metrics of a policy, ready to be handed to a loop: a score, a win rate, a divergence.

Each samples with a seed of its own, so that a curve over training compares the same draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rewardkit.measures.intervals import average, proportion
from rewardkit.measures.masked import masked_sum
from rewardkit.measures.pairs import wins
from rewardkit.protocols import Reward
from rewardkit.registry import entry
from rewardkit.training.reference import attach_reference
from rewardkit.types import Measure, Rollout


def _by_prompt(values: Tensor, ok: Tensor, group: Tensor) -> list[float]:
    """The mean of each prompt's scored rows; prompts without one are left out."""
    return [float(values[ok & (group == g)].double().mean()) for g in torch.unique(group[ok])]


def _scored(reward: Reward, rollout: Rollout) -> tuple[Tensor, Tensor]:
    scores = reward(rollout)
    if scores.outcome is None:
        raise ValueError(f"reward {reward.name!r} gives no outcome to compare")
    return scores.outcome, scores.ok


@entry("loops.evaluate:mean_score", tags=("held-out",))
def mean_score(
    prompts: Sequence[Any], reward: Reward, *, n: int = 1, sampling: Any = None, seed: int = 0
) -> Callable[[Any], Measure]:
    """The mean score of a policy's outputs, one figure a prompt, with a 95% interval over prompts.

    Args:
        prompts: never trained on. reward: any reward. n: outputs a prompt. sampling: the policy's own options.

    >>> from rewardkit.policies.table import TablePolicy
    >>> from rewardkit.rewards.base import Constant
    >>> mean_score(["x"], Constant(2.0))(TablePolicy(["x"], ["a", "b"])).value
    2.0
    """

    def score(policy: Any) -> Measure:
        rollout = policy.sample(prompts, n, sampling=sampling, seed=seed)
        outcome, ok = _scored(reward, rollout)
        return average(_by_prompt(outcome, ok, rollout.group), invalid=int((~ok).sum()))

    return score


@entry("loops.evaluate:win_rate", aliases=("evals:pairwise_winrate",), tags=("held-out",))
def win_rate(
    prompts: Sequence[Any], reward: Reward, against: Any, *, sampling: Any = None, seed: int = 0
) -> Callable[[Any], Measure]:
    """How often a policy's output scores above another's on the same prompt; a tie counts one half.

    Args:
        against: a policy, which answers once with another seed, or a rollout of one output for each prompt, in order.

    >>> from rewardkit.policies.table import TablePolicy
    >>> from rewardkit.rewards.base import Constant
    >>> policy = TablePolicy(["x"], ["a", "b"])
    >>> win_rate(["x"], Constant(1.0), policy.at("start"))(policy).value
    0.5
    """
    kept: list[tuple[Tensor, Tensor]] = []

    def rate(policy: Any) -> Measure:
        if not kept:
            theirs = against
            if not isinstance(theirs, Rollout):
                theirs = against.sample(prompts, 1, sampling=sampling, seed=seed + 1)
            if len(theirs) != len(prompts):
                raise ValueError(f"win_rate compares one output a prompt: {len(theirs)} for {len(prompts)} prompts")
            kept.append(_scored(reward, theirs))
        other, known = kept[0]
        mine, ok = _scored(reward, policy.sample(prompts, 1, sampling=sampling, seed=seed))
        both = ok & known.to(ok.device)
        won = wins(mine, other.to(mine.device))[both]
        return proportion(float(won.sum()), int(both.sum()), invalid=int((~both).sum()))

    return rate


@entry("loops.evaluate:divergence_from", tags=("held-out", "kl"))
def divergence_from(
    reference: Any, prompts: Sequence[Any], *, n: int = 1, sampling: Any = None, seed: int = 0
) -> Callable[[Any], Measure]:
    """KL(policy || reference) in nats a response, by k1 over the policy's own samples, one figure a prompt.

    Args:
        reference: a frozen policy, such as ``policy.at("start")``.

    >>> from rewardkit.policies.table import TablePolicy
    >>> policy = TablePolicy(["x"], ["a", "b"])
    >>> divergence_from(policy.at("start"), ["x"])(policy).value
    0.0
    """

    def divergence(policy: Any) -> Measure:
        rollout = attach_reference(policy.sample(prompts, n, sampling=sampling, seed=seed), reference)
        if "old_logps" not in rollout:
            rollout = attach_reference(rollout, policy, "old_logps")
        inside = (rollout.mask > 0).to(rollout.mask.dtype)
        ratio_B = masked_sum(rollout["old_logps"] - rollout["ref_logps"], inside)
        return average(_by_prompt(ratio_B, torch.ones_like(rollout.group, dtype=torch.bool), rollout.group))

    return divergence
