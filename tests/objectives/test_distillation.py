"""Token-level RLHF as distillation: the identity, the adaptive weight, the chunked head."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rewardkit import testing
from rewardkit.measures.kl import exact_kl
from rewardkit.objectives.distillation import FLOOR, align_kl, aligndistil, extrapolated
from rewardkit.policies.table import TablePolicy
from rewardkit.training import Learner, Term
from rewardkit.types import Sample

BETA = 0.1


def table(seed: int) -> TablePolicy:
    logits = torch.randn(1, 1, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
    return TablePolicy(["x"], list("abcdef"), logits=logits)


def test_aligndistil_passes_every_oracle() -> None:
    ran = testing.check(aligndistil, lambda seed: (b := testing.language_batch(seed)) | {"align_kl": b["full_kl"]})
    assert {"pure", "padding", "row_order", "nan_outside", "all_masked", "precision"} <= set(ran)


@pytest.mark.parametrize("price", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_gradient_is_that_of_token_level_rlhf_with_the_log_ratio_as_reward(seed: int, price: float) -> None:
    """The value ``-E[beta log(p_tuned / p_ref)] + price KL(policy || ref)`` by enumeration, and its gradient."""
    policy, tuned, reference = table(seed), table(seed + 10), table(seed + 20)
    rollout = policy.encode([Sample("x", "a")])
    w = BETA / price
    # w z_tuned + (1 - w) z_ref, said as a step of w - 1 beyond the tuned model
    found = policy.evaluate(rollout, (align_kl(tuned, reference, beta=BETA, weight=w),))["align_kl"]
    target = extrapolated(tuned.logits[0, 0], reference.logits[0, 0], w - 1).detach()
    distilled = torch.autograd.grad(price * exact_kl(policy.logits[0, 0], target), policy.logits)[0]
    logp = policy.logits[0, 0].log_softmax(-1)
    ratio = (tuned.logits[0, 0].log_softmax(-1) - reference.logits[0, 0].log_softmax(-1)).detach()
    rlhf = -(logp.exp() * BETA * ratio).sum() + price * exact_kl(logp, reference.logits[0, 0].detach())
    wanted = torch.autograd.grad(rlhf, policy.logits)[0]
    assert (distilled - wanted).abs().max() < 1e-12
    # The contrastive target goes a step of w beyond the tuned model instead.
    further = extrapolated(tuned.logits[0, 0], reference.logits[0, 0], w)
    assert found.item() == pytest.approx((BETA / w * exact_kl(policy.logits[0, 0], further)).item())


def test_the_adaptive_weight_is_the_distance_of_the_two_models_at_the_position() -> None:
    policy, tuned, away = table(0), table(1), table(2)
    p, q = (m.logits[0, 0].softmax(-1) for m in (tuned, away))
    w = (15 * (p - q).abs().sum() + FLOOR).item()
    z = tuned.logits[0, 0] + w * (tuned.logits[0, 0] - away.logits[0, 0])
    found = policy.evaluate(policy.encode([Sample("x", "c")]), (align_kl(tuned, away, beta=BETA, scale=15),))
    assert found["align_kl"].item() == pytest.approx((BETA / w * exact_kl(policy.logits[0, 0], z)).item())


def test_equal_models_ask_for_their_own_distribution_without_dividing_by_zero() -> None:
    policy, tuned = table(0), table(1)
    learner = Learner(policy, lr=0.05, clip=None)
    data = policy.encode([Sample("x", "a")])
    want = (align_kl(tuned, tuned, beta=1e-3, scale=15),)
    for _ in range(400):
        learner.step(Term(data, aligndistil, want=want))
    assert torch.allclose(policy.logits.softmax(-1), tuned.logits.softmax(-1), atol=5e-3)


def test_it_converges_to_the_mixture_of_logits_and_not_of_probabilities() -> None:
    policy, tuned, away = table(0), table(1), table(2)
    learner, data = Learner(policy, lr=0.05, clip=None), policy.encode([Sample("x", "a")])
    for _ in range(600):
        learner.step(Term(data, aligndistil, want=(align_kl(tuned, away, beta=1.0, weight=0.5),)))
    target = (1.5 * tuned.logits - 0.5 * away.logits).softmax(-1)
    mixed: Tensor = 1.5 * tuned.logits.softmax(-1) - 0.5 * away.logits.softmax(-1)
    found = policy.logits.softmax(-1)
    assert (found - target).abs().max() < 5e-3
    assert (found - mixed).abs().max() > 5e-2
