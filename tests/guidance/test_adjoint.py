"""Control of a trajectory: the closed form of a linear-quadratic problem, sources that end where they should."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rewardkit.guidance.adjoint import Adam, controlled, source_path, trajectory_adjoint_control
from rewardkit.policies.diffusion import Denoise, Diffusion, DiffusionPolicy, Flow, PointNet
from rewardkit.protocols import Policy
from rewardkit.types import Sample

STEPS = 6


def lqr(A: list[Tensor], drift: Tensor, x: Tensor, goal: Tensor, lam: float, weights: Tensor) -> Tensor:
    """``min sum |u_k|^2 / (2 w_k) + lam / 2 |x_K - goal|^2`` with ``x' = A_k x + drift_k + u_k``, by Riccati."""
    eye = torch.eye(len(goal), dtype=x.dtype)
    P, p, gains = lam * eye, -lam * goal, []
    for k in reversed(range(STEPS)):
        M = torch.linalg.inv(eye / weights[k] + P)
        gains.append((M @ P @ A[k], M @ (P @ drift[k] + p)))
        closed = eye - M @ P
        P, p = A[k].T @ P @ closed @ A[k], A[k].T @ closed.T @ (P @ drift[k] + p)
        P = (P + P.T) / 2
    found = []
    for k, (K, c) in enumerate(reversed(gains)):
        u = -(K @ x + c)
        x = A[k] @ x + drift[k] + u
        found.append(u)
    return torch.stack(found)


def test_the_control_of_a_linear_quadratic_problem_is_the_closed_form() -> None:
    chance = torch.Generator().manual_seed(0)
    eye = torch.eye(3, dtype=torch.float64)
    A = [eye + 0.3 * torch.randn(3, 3, generator=chance, dtype=torch.float64) for _ in range(STEPS)]
    source = torch.randn(STEPS + 1, 2, 3, generator=chance, dtype=torch.float64)
    goal, lam = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), 1.5
    weights = torch.rand(STEPS, generator=chance, dtype=torch.float64) + 0.2
    u, x = controlled(
        lambda x, k: x @ A[k].T, source, lambda x: lam * (goal - x), weights,
        Adam(iterations=4000, lr=0.02, decay=0.998, floor=0.0),
    )  # fmt: skip
    for row in range(2):
        drift = torch.stack([source[k + 1, row] - A[k] @ source[k, row] for k in range(STEPS)])
        want = lqr(A, drift, source[0, row], goal, lam, weights)
        assert (u[:, row] - want).abs().max() < 1e-3
    torch.testing.assert_close(x[0], source[0])
    detached, _ = controlled(
        lambda x, k: x + (x @ A[k].T - x).detach(), source, lambda x: lam * (goal - x), weights,
        Adam(iterations=1500, lr=0.02, decay=0.998, floor=0.0),
    )  # fmt: skip
    assert (detached - u).abs().max() > 0.05, "adjoints that skip the dynamics give another control"


@pytest.fixture(params=["diffusion", "flow"])
def policy(request: pytest.FixtureRequest) -> DiffusionPolicy:
    torch.manual_seed(0)
    process: Any = Diffusion.cosine(100) if request.param == "diffusion" else Flow()
    return DiffusionPolicy(PointNet(2, width=16, depth=1, scale=100.0 if request.param == "diffusion" else 1.0),
                           process, (2,))  # fmt: skip


SOURCES = [Sample(None, torch.tensor([0.5, -1.0])), Sample(None, torch.tensor([1.0, 0.2]))]


@pytest.mark.parametrize("source", ["inversion", "noising"])
def test_without_reward_the_source_comes_back(policy: DiffusionPolicy, source: Any) -> None:
    edited = trajectory_adjoint_control(policy, lambda x, s: 0 * x.sum(1), lam=1.0, source=source)
    rollout = edited.sample(SOURCES, 2, sampling=Denoise(12), seed=0)
    assert isinstance(edited, Policy)
    for row, sample in enumerate(rollout.samples):
        torch.testing.assert_close(sample.output, SOURCES[row // 2].output, atol=1e-4, rtol=1e-4)
    assert rollout.group.tolist() == [0, 0, 1, 1]
    assert rollout.cost.calls == 4 * 6 * 42
    assert rollout.cost.gradients == 4 * 7 * 20


@pytest.mark.parametrize("source", ["inversion", "noising"])
def test_a_larger_weight_goes_further_up_the_reward(policy: DiffusionPolicy, source: Any) -> None:
    def goes(lam: float) -> float:
        edited = trajectory_adjoint_control(
            policy, lambda x, s: x[:, 0], lam=lam, source=source, adam=Adam(iterations=60, lr=0.05)
        )
        return float(
            torch.stack([s.output[0] for s in edited.sample(SOURCES, sampling=Denoise(12), seed=0).samples]).mean()
        )

    assert 0.75 + 0.05 < goes(0.5) < goes(2.0)


def test_an_inverted_source_is_what_the_sampler_leads_back(policy: DiffusionPolicy) -> None:
    """With many steps, without any residual."""
    steps = 100
    times = policy.process.times(steps)[steps // 2 :]
    clean = torch.stack([s.output for s in SOURCES])

    def network(x: Tensor, time: Tensor) -> Tensor:
        with torch.no_grad():
            return policy.module(x, time.float(), None)

    path = source_path(policy.process, network, clean, times, "inversion", torch.Generator())
    x = path[0]
    for i in range(steps // 2, steps):
        x, _ = policy.process.step(
            x, network(x, policy.process.times(steps)[i].expand(2)), torch.full((2,), i), steps, 0
        )
    torch.testing.assert_close(x, clean, atol=0.06, rtol=0)
    assert len(path) == steps // 2 + 1


def test_a_noised_source_has_the_process_s_own_spread(policy: DiffusionPolicy) -> None:
    clean = torch.ones(4000, 2)
    times = policy.process.times(10)[4:]
    path = source_path(policy.process, None, clean, times, "noising", torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    for k, time in enumerate(times):
        a, b = (float(v) for v in policy.process.scales(time[None]))
        assert float(path[k].mean()) == pytest.approx(a, abs=0.05)
        assert float(path[k].std()) == pytest.approx(b, abs=0.05)


def test_starts_without_an_output_are_refused(policy: DiffusionPolicy) -> None:
    edited = trajectory_adjoint_control(policy, lambda x, s: x[:, 0], lam=1.0)
    with pytest.raises(ValueError, match="begins with an output"):
        edited.sample(["x"])
    with pytest.raises(ValueError, match="depth"):
        trajectory_adjoint_control(policy, lambda x, s: x[:, 0], lam=1.0, depth=0.0)
