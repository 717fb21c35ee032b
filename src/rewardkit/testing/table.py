"""Exact expectations over a tabular policy: what an estimator must equal on average."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from rewardkit.needs import call, name_of, needs
from rewardkit.objectives.base import Loss
from rewardkit.policies.table import TablePolicy
from rewardkit.testing.names import assert_close
from rewardkit.types import Sample

Score = Callable[[Sample], float]


def expectation(policy: TablePolicy, prompt: Any, score: Score) -> Tensor:
    """The exact expected score of a prompt's outputs, with gradients in the policy's logits.

    >>> policy = TablePolicy(["x"], [0, 1])
    >>> expectation(policy, "x", lambda s: float(s.output)).item()
    0.5
    """
    samples, p = policy.enumerate(prompt)
    return (p * torch.tensor([score(s) for s in samples], dtype=p.dtype)).sum()


def exact_gradient(policy: TablePolicy, prompt: Any, score: Score) -> Tensor:
    """The gradient of the expected score with respect to the logits, ``[X, N, V]``."""
    return torch.autograd.grad(expectation(policy, prompt, score), policy.logits)[0]


def policy_gradient(
    fn: Callable[..., Loss],
    policy: TablePolicy,
    score: Score,
    *,
    prompt: Any = None,
    names: Mapping[str, Tensor] | None = None,
    tolerance: float = 1e-6,
) -> Tensor:
    """The objective's gradient, averaged over every output by its probability, is minus the exact policy gradient.

    Each position's advantage is the output's score; ``old_logps`` are the policy's own. Positions are summed.

    Args:
        fn: a policy objective per token, or a partial of it. policy: in float64 for a sharp comparison.
        score: of a sample. prompt: default the policy's first. names: more tensors, ``[V**T, T]``, by name.
        tolerance: largest absolute difference allowed.

    Returns:
        the exact gradient.

    Raises:
        AssertionError: if they differ.
    """
    prompt = policy.prompts[0] if prompt is None else prompt
    samples, p = policy.enumerate(prompt)
    rollout = policy.encode(samples)
    want = [n for n in ("logps", "entropy") if n in needs(fn)]
    live = policy.evaluate(rollout, want=want)
    scores = torch.tensor([score(s) for s in samples], dtype=p.dtype)
    given = {
        "mask": rollout.mask,
        "advantages": scores[:, None].expand_as(rollout.mask),
        "old_logps": policy.evaluate(rollout)["logps"].detach(),
        **(names or {}),
        **live,
    }
    value_BT = call(fn, given).value
    estimate = torch.autograd.grad((p.detach()[:, None] * value_BT * rollout.mask).sum(), policy.logits)[0]
    exact = exact_gradient(policy, prompt, score)
    assert_close(-estimate, exact, f"{name_of(fn)}: the expected policy gradient", rtol=tolerance, atol=tolerance)
    return exact
