"""KL in the reward."""

from functools import partial

import pytest
import torch

from rewardkit.credit.base import chain
from rewardkit.credit.group import rloo
from rewardkit.credit.kl import kl_penalty
from rewardkit.credit.returns import reward_to_go, total
from rewardkit.measures.kl import exact_kl
from rewardkit.policies.table import TablePolicy

MASK = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]])


def _names():
    g = torch.Generator().manual_seed(5)
    old, ref = torch.randn(2, 3, generator=g), torch.randn(2, 3, generator=g)
    return {
        "rewards": torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 2.0]]),
        "outcome": torch.tensor([1.0, 2.0]),
        "old_logps": old,
        "ref_logps": ref,
        "mask": MASK,
        "ok": torch.ones(2).bool(),
        "group": torch.zeros(2).long(),
    }


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_the_penalty_is_taken_off_tokens_and_off_the_outcome_alike(estimator) -> None:
    """R50: by token in `rewards`, by sequence in `outcome`; both are the same penalty."""
    names = _names()
    call = {k: names[k] for k in ("rewards", "old_logps", "ref_logps", "mask", "outcome")}
    found = kl_penalty(**call, coef=0.3, estimator=estimator)
    d = names["old_logps"] - names["ref_logps"]
    by_hand = {"k1": d, "k2": d**2 / 2, "k3": (-d).exp() - 1 + d}[estimator] * MASK
    assert torch.allclose(found["rewards"], names["rewards"] - 0.3 * by_hand, atol=1e-6)
    assert torch.allclose(found["outcome"], found["rewards"].sum(1), atol=1e-6)


def test_a_policy_likelier_than_its_reference_pays() -> None:
    """R34."""
    one = torch.ones(1, 1)
    assert kl_penalty(one * 0, -one, -2 * one, one, coef=1.0)["rewards"].item() == -1.0


def test_equal_policies_pay_nothing() -> None:
    names = _names()
    found = kl_penalty(names["rewards"], names["old_logps"], names["old_logps"], MASK, coef=9.0)
    assert torch.equal(found["rewards"], names["rewards"])
    assert "outcome" not in found


def test_a_coefficient_a_row() -> None:
    names = _names()
    found = kl_penalty(names["rewards"], names["old_logps"], names["ref_logps"], MASK, coef=torch.tensor([0.0, 1.0]))
    assert torch.equal(found["rewards"][0], names["rewards"][0])
    assert not torch.equal(found["rewards"][1], names["rewards"][1])


def test_nan_outside_the_mask_never_leaks_and_no_gradient_flows() -> None:
    """R27."""
    names = _names()
    old = torch.where(MASK > 0, names["old_logps"], torch.tensor(float("nan"))).requires_grad_()
    found = kl_penalty(names["rewards"], old, names["ref_logps"], MASK, names["outcome"], coef=0.3)
    assert torch.isfinite(found["rewards"]).all()
    assert torch.isfinite(found["outcome"]).all()
    assert not found["rewards"].requires_grad


def test_rloo_reads_the_penalised_outcome() -> None:
    """R50: and summing the penalised tokens first gives the same advantages."""
    names = _names()
    penalty = partial(kl_penalty, coef=0.5)
    found = chain(penalty, rloo)(**names)["advantages"]
    penalised = kl_penalty(*(names[k] for k in ("rewards", "old_logps", "ref_logps", "mask", "outcome")), coef=0.5)
    expected = penalised["outcome"][0] - penalised["outcome"][1]
    assert found[:, 0].tolist() == pytest.approx([expected.item(), -expected.item()])
    assert torch.allclose(found, chain(penalty, total, rloo)(**names)["advantages"], atol=1e-6)


def test_the_penalty_in_the_reward_has_the_gradient_of_the_exact_kl() -> None:
    """R33: with reward to go, over a horizon of two, by enumeration."""
    g = torch.Generator().manual_seed(0)
    policy, reference = (
        TablePolicy(["x"], ["a", "b", "c"], 2, torch.randn(1, 4, 3, generator=g, dtype=torch.float64)) for _ in range(2)
    )
    samples, p = policy.enumerate("x")
    rollout = policy.encode(samples)
    logps, ref = policy.evaluate(rollout)["logps"], reference.evaluate(rollout)["logps"].detach()
    zeros = torch.zeros_like(ref)
    found = chain(partial(kl_penalty, coef=1.0), reward_to_go)(
        rewards=zeros, old_logps=logps.detach(), ref_logps=ref, mask=torch.ones_like(ref)
    )
    surrogate = (p.detach()[:, None] * found["advantages"] * logps).sum()
    first, second = policy.logits[0], reference.logits[0].detach()
    at_root = exact_kl(first[0], second[0])
    truth = at_root + (first[0].softmax(-1) * exact_kl(first[1:], second[1:])).sum()
    got, want = (torch.autograd.grad(x, policy.logits, retain_graph=True)[0] for x in (-surrogate, truth))
    assert torch.allclose(got, want, atol=1e-12)
