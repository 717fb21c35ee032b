"""KL divergence of the policy from a reference: three estimators from log-probs of samples, and the exact one.

All are ``KL(policy || reference)`` with samples from the policy, in nats, per element; sum over ``T`` for a response.
What each does when it is differentiated (samples from the policy itself, tested by enumeration):

* as a **loss**, ``k1`` has the gradient ``E[grad logp] = 0``: it does nothing but add noise; ``k2`` has the gradient of
  the exact KL; ``k3`` has that of the reverse, ``KL(reference || policy)``.
* as a **reward** (a number without gradient, :mod:`rewardkit.credit.kl`), ``k1`` gives the gradient of the exact KL.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from rewardkit.registry import entry

Estimator = Literal["k1", "k2", "k3"]


def _wide(x: Tensor) -> Tensor:
    """At least float32: a difference of two log-probs in bfloat16 is mostly rounding."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


@entry("measures:kl_estimate", tags=("kl",), source="Schulman 2020, Approximating KL Divergence")
def kl_estimate(logps: Tensor, ref_logps: Tensor, estimator: Estimator = "k3") -> Tensor:
    """Per-element estimate of ``KL(policy || reference)``; with ``d = logps - ref_logps``:

    ``k1 = d`` (unbiased, signed), ``k2 = d^2 / 2`` (biased, never negative), ``k3 = exp(-d) - 1 + d`` (unbiased, never
    negative).

    Args:
        logps, ref_logps: log-probs in nats of the same samples, any one shape. Computed in float32 at least.
        estimator: ``k1``, ``k2`` or ``k3``.

    Returns:
        The same shape, with gradients.

    Raises:
        ValueError: for an unknown estimator.

    >>> kl_estimate(torch.tensor([-1.0]), torch.tensor([-2.0]), "k1").item()
    1.0
    """
    d = _wide(logps) - _wide(ref_logps)
    if estimator == "k1":
        return d
    if estimator == "k2":
        return d.square() / 2
    if estimator == "k3":
        return torch.expm1(-d) + d
    raise ValueError(f"estimator must be one of {get_args(Estimator)}, not {estimator!r}")


@entry("measures:exact_kl", tags=("kl", "exact"))
def exact_kl(logits: Tensor, ref_logits: Tensor) -> Tensor:
    """``KL(policy || reference)`` over the whole last axis, in nats: ``[..., V], [..., V] -> [...]``.

    Actions of probability 0 (logit ``-inf``) contribute 0. Made to be evaluated on a chunk of positions: no caller
    should hold ``[B, T, V]``.

    >>> exact_kl(torch.tensor([0.0, 0.0]), torch.tensor([0.0, 0.0])).item()
    0.0
    """
    logp, ref_logp = _wide(logits).log_softmax(-1), _wide(ref_logits).log_softmax(-1)
    p = logp.exp()
    return (p * torch.where(p > 0, logp - ref_logp, torch.zeros_like(p))).sum(-1)
