"""What a batch says of itself: rewards, cut-offs, divergence, and whether there is anything to learn from."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch
from torch import Tensor

from rewardkit.measures.kl import Estimator, kl_estimate
from rewardkit.measures.masked import masked_sum
from rewardkit.rewards.base import describe, errors
from rewardkit.rewards.ops import TooManyErrorsError
from rewardkit.types import Rollout, Scores

_REPORTED: tuple[Estimator, ...] = ("k1", "k3")

log = logging.getLogger(__name__)


class NoSignal(UserWarning):
    """A batch, or a run, from which nothing can be learned."""


def divergence(rollout: Rollout, start: str = "start_logps") -> dict[str, float]:
    """KL of the policy that sampled from the first policy, in nats: k1 and k3, a response and a token.

    Samples are the policy's own, so the direction is KL(policy || start).
    """
    mask = rollout.mask
    d = {k: kl_estimate(rollout["old_logps"], rollout[start], k) for k in _REPORTED}
    rows = float((mask > 0).any(-1).sum().clamp(min=1))
    tokens = float((mask > 0).sum().clamp(min=1))
    found = {}
    for name, value in d.items():
        total = float(masked_sum(value, (mask > 0).to(value.dtype)).sum())
        found[f"kl/{name}_response"], found[f"kl/{name}_token"] = total / rows, total / tokens
    return found


def rewards(rollout: Rollout, scores: Scores) -> dict[str, float]:
    """What :func:`rewardkit.rewards.base.describe` says, cut-offs, lengths, groups of several with equal rewards."""
    found = describe(scores) | {
        "frac_cut": sum(s.ended == "cut" for s in rollout.samples) / len(rollout),
        "frac_failed": sum(s.ended == "failed" for s in rollout.samples) / len(rollout),
        "length": float((rollout.mask > 0).sum(-1).float().mean()),
        "tokens": float(rollout.cost.tokens),
    }
    if scores.outcome is not None and bool(scores.ok.any()):
        equal_G = _equal_groups(scores.outcome, scores.ok, rollout.group)
        if len(equal_G):
            found["frac_zero_std"] = float(equal_G.double().mean())
    return found


def _equal_groups(outcome: Tensor, ok: Tensor, group: Tensor) -> Tensor:
    """For each group of two scored rows or more, whether all have the same outcome: bool ``[G]``."""
    numbers, index, count = torch.unique(group[ok], return_inverse=True, return_counts=True)
    x = outcome[ok].double()
    high = torch.full((len(numbers),), float("-inf"), dtype=x.dtype, device=x.device).scatter_reduce(
        0, index, x, "amax"
    )
    low = torch.full((len(numbers),), float("inf"), dtype=x.dtype, device=x.device).scatter_reduce(0, index, x, "amin")
    return (high == low)[count > 1]


def _taught(credited: Rollout) -> Tensor:
    """The advantages of the trained positions: ``[N]``; ones where credit gives weights alone."""
    advantages = credited.tensors.get("advantages", torch.ones_like(credited.mask))
    return advantages[credited.mask > 0]


def check_errors(scores: Scores, most: float) -> None:
    """Name the rows that the grader failed on.

    Raises:
        TooManyErrorsError: if they are more than ``most`` of the batch, with the first reasons.
    """
    found = errors(scores)
    count = sum(found.values())
    if not count:
        return
    reasons = "; ".join(f"{why} ({times}x)" for why, times in list(found.items())[:3])
    said = f"the reward failed on {count} of {len(scores)} rows: {reasons}"
    if count > most * len(scores):
        raise TooManyErrorsError(f"{said}. More than max_errors={most} of the batch: the run stops")
    log.warning("%s; they train nothing and are in no baseline", said)


class Watch:
    """Says aloud, once each, that there is nothing to learn from.

    Args:
        still: updates after which a policy that never moved is suspicious.
    """

    def __init__(self, still: int = 3) -> None:
        self.still, self._said, self._unmoved = still, set[str](), 0

    def look(self, step: int, metrics: dict[str, Any], credited: Rollout, moved: bool) -> dict[str, float]:
        """Metrics ``no_signal`` (this batch taught nothing) and ``unmoved`` (updates that changed no weight).

        Args:
            step: turns so far, from 1. metrics: of :func:`rewards`. credited: the rollout with what credit made of it.
            moved: whether the weights that sampled differ from those the loop began with.
        """
        # Equal rewards are looked at beside the advantages: a KL in the reward hides them there.
        # A row whose future the critic knows may well be cut off.
        cut = metrics["frac_cut"] == 1.0 and "bootstrap" not in credited
        equal = metrics.get("frac_zero_std") == 1.0
        taught_N = _taught(credited)
        trained, flat = len(taught_N) > 0, len(taught_N) > 0 and not bool(taught_N.any())
        stuck = step > 1 and not moved
        self._unmoved = self._unmoved + 1 if stuck else 0
        if cut:
            self._say("cut", f"step {step}: every output was cut off; raise the token limit")
        if equal:
            self._say(
                "equal",
                f"step {step}: within every group all outputs have the same reward; nothing tells better from worse",
            )
        elif flat:
            self._say(
                "flat",
                f"step {step}: every advantage is 0; nothing tells better from worse. Does the credit rule compare "
                "outputs of a group, and is there one in each? Then n must be at least 2",
            )
        if not trained:
            self._say("untrained", f"step {step}: no row was trained; all were masked, or the grader scored none")
        if self._unmoved >= self.still:
            self._say(
                "unmoved",
                f"step {step}: after {self._unmoved} updates the policy still equals the one it started from; is it "
                "frozen, is the learning rate 0, or too small to show in the precision of the weights?",
            )
        return {"no_signal": float(cut or equal or flat or not trained), "unmoved": float(stuck)}

    def _say(self, key: str, text: str) -> None:
        if key not in self._said:
            self._said.add(key)
            warnings.warn(text, NoSignal, stacklevel=4)
