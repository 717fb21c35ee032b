"""KL estimators against exact enumeration on tables."""

import pytest
import torch

from rewardkit.measures.kl import exact_kl, kl_estimate
from rewardkit.policies.table import TablePolicy


@pytest.fixture
def tables() -> tuple[TablePolicy, TablePolicy]:
    logits = torch.randn(1, 1, 5, dtype=torch.float64), torch.randn(1, 1, 5, dtype=torch.float64)
    policy, reference = (TablePolicy(["x"], list("abcde"), logits=one) for one in logits)
    return policy, reference


def _all(policy: TablePolicy, reference: TablePolicy) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Probabilities (constant), live log-probs, reference log-probs of every action."""
    samples, p = policy.enumerate("x")
    logps = policy.evaluate(policy.encode(samples))["logps"][:, 0]
    return p.detach(), logps, reference.evaluate(reference.encode(samples))["logps"][:, 0].detach()


def _truth(policy: TablePolicy, reference: TablePolicy) -> torch.Tensor:
    return exact_kl(policy.logits[0, 0], reference.logits[0, 0])


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_k1_and_k3_are_unbiased(tables, estimator) -> None:
    """R34."""
    p, logps, ref = _all(*tables)
    expected = (p * kl_estimate(logps, ref, estimator)).sum()
    assert expected.item() == pytest.approx(_truth(*tables).item(), abs=1e-12)


def test_k2_is_biased_but_close_for_near_policies(tables) -> None:
    policy, _ = tables
    near = TablePolicy(["x"], list("abcde"), logits=policy.logits.detach() + 0.01 * torch.randn(1, 1, 5).double())
    p, logps, ref = _all(policy, near)
    expected = (p * kl_estimate(logps, ref, "k2")).sum().item()
    assert expected == pytest.approx(_truth(policy, near).item(), rel=0.05)
    p, logps, ref = _all(*tables)
    assert abs((p * kl_estimate(logps, ref, "k2")).sum() - _truth(*tables)) > 1e-3


def test_signs_and_direction() -> None:
    """R34: the policy likelier than the reference is positive k1; k2 and k3 are never negative."""
    logps, ref = torch.tensor([-1.0, -3.0]), torch.tensor([-2.0, -2.0])
    assert kl_estimate(logps, ref, "k1").tolist() == [1.0, -1.0]
    assert kl_estimate(logps, ref, "k2").tolist() == [0.5, 0.5]
    k3 = kl_estimate(logps, ref, "k3").tolist()
    assert k3 == pytest.approx([0.36787944, 0.71828183], abs=1e-6)
    forward = exact_kl(torch.tensor([0.0, 3.0]), torch.tensor([0.0, 0.0]))
    backward = exact_kl(torch.tensor([0.0, 0.0]), torch.tensor([0.0, 3.0]))
    p = torch.tensor([0.0, 3.0]).softmax(-1)
    assert forward.item() == pytest.approx((p * (p / 0.5).log()).sum().item(), abs=1e-6)
    assert backward.item() > forward.item()


def test_equal_policies_give_zero() -> None:
    logps = torch.randn(3, 4)
    for estimator in ("k1", "k2", "k3"):
        assert torch.equal(kl_estimate(logps, logps, estimator), torch.zeros(3, 4))
    assert torch.equal(exact_kl(logps, logps), torch.zeros(3))


def _gradient(policy: TablePolicy, value: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(value, policy.logits, retain_graph=True)[0]


def test_gradients_of_the_estimators_as_losses(tables) -> None:
    """R33, R35: k1 has none in expectation, k2 that of KL(policy || reference), k3 that of KL(reference || policy)."""
    policy, reference = tables
    p, logps, ref = _all(policy, reference)
    grads = {k: _gradient(policy, (p * kl_estimate(logps, ref, k)).sum()) for k in ("k1", "k2", "k3")}
    exact = _gradient(policy, _truth(policy, reference))
    reverse = _gradient(policy, exact_kl(reference.logits[0, 0].detach(), policy.logits[0, 0]))
    assert torch.allclose(grads["k1"], torch.zeros_like(exact), atol=1e-12)
    assert torch.allclose(grads["k2"], exact, atol=1e-12)
    assert torch.allclose(grads["k3"], reverse, atol=1e-12)
    assert exact.abs().max() > 1e-2
    single = torch.tensor([-1.0], requires_grad=True)
    kl_estimate(single, torch.tensor([-2.0]), "k3").backward()
    assert single.grad is not None
    assert single.grad.item() != 0


def test_gradient_of_k1_as_a_reward_is_that_of_the_exact_kl(tables) -> None:
    """R33."""
    policy, reference = tables
    p, logps, ref = _all(policy, reference)
    surrogate = (p * kl_estimate(logps, ref, "k1").detach() * logps).sum()
    assert torch.allclose(_gradient(policy, surrogate), _gradient(policy, _truth(policy, reference)), atol=1e-12)


def test_exact_kl_passes_gradcheck() -> None:
    logits = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(exact_kl, (logits, torch.randn(2, 4, dtype=torch.float64)))


def test_bfloat16_log_probs_are_subtracted_in_float32() -> None:
    """R36: and k3 of a small difference, which bfloat16 would lose, is kept."""
    logps, ref = torch.tensor([-1.0]).bfloat16(), torch.tensor([-1.0078125]).bfloat16()
    for estimator, expected in (("k1", 0.0078125), ("k3", 0.0078125**2 / 2)):
        found = kl_estimate(logps, ref, estimator)
        assert found.dtype == torch.float32
        assert found.item() == pytest.approx(expected, rel=1e-2)
    assert exact_kl(torch.randn(5).half(), torch.randn(5).half()).dtype == torch.float32


def test_impossible_actions_contribute_nothing() -> None:
    logits = torch.tensor([0.0, 0.0, -torch.inf], requires_grad=True)
    value = exact_kl(logits, torch.tensor([0.0, 0.0, 0.0]))
    assert value.item() == pytest.approx(torch.tensor(1.5).log().item(), abs=1e-6)
    value.backward()
    assert torch.isfinite(logits.grad).all()
    assert exact_kl(torch.zeros(2), torch.tensor([0.0, -torch.inf])).item() == torch.inf


def test_kl_is_zero_at_the_start_and_not_after_a_step() -> None:
    """R37."""
    policy = TablePolicy(["x"], ["a", "b"])
    rollout = policy.sample(["x"], n=8, seed=0)
    start = policy.at("start").evaluate(rollout)["logps"]
    assert kl_estimate(policy.evaluate(rollout)["logps"], start, "k3").abs().max() == 0
    policy.evaluate(rollout)["logps"][0].sum().backward()
    with torch.no_grad():
        policy.logits.add_(policy.logits.grad)
    assert kl_estimate(policy.evaluate(rollout)["logps"], start, "k3").min() > 0


def test_unknown_estimator_is_refused() -> None:
    with pytest.raises(ValueError, match="k4"):
        kl_estimate(torch.zeros(1), torch.zeros(1), "k4")
