"""World gaussians: closed forms against quadrature, annotators against gold, and a loop that finds the optimum."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from rewardkit.credit.base import chain
from rewardkit.credit.group import rloo, whiten
from rewardkit.credit.kl import kl_penalty
from rewardkit.loops.online import online
from rewardkit.loops.prompts import PromptSet
from rewardkit.objectives.policy import clipped
from rewardkit.policies.diffusion import Denoise
from rewardkit.training.learner import Learner
from rewardkit.worlds.gaussians import Gaussians
from rewardkit.worlds.gaussians.world import SHARPNESS

LINE = torch.linspace(-5, 5, 401, dtype=torch.float64)
GRID = torch.cartesian_prod(LINE, LINE)
CELL = float(LINE[1] - LINE[0]) ** 2


def test_densities_integrate_to_one_and_samples_follow_them() -> None:
    world = Gaussians(2)
    data = world.data["A"]
    assert float(data.log_prob(GRID).exp().sum() * CELL) == pytest.approx(1.0, abs=1e-3)
    mean, covariance = data.moments()
    x = data.sample(20_000, torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(x.mean(0), mean, atol=0.05, rtol=0)
    torch.testing.assert_close(x.T.cov(), covariance, atol=0.05, rtol=0)


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_the_optimum_is_that_of_quadrature(beta: float) -> None:
    world = Gaussians(1)
    best, gold, kl = world.regularised("A", beta)
    log_p = world.data["A"].log_prob(GRID)
    reward = world.gold.of(GRID.float(), ["A"] * len(GRID)).double()
    log_q = log_p + reward / beta
    log_q = log_q - log_q.exp().sum().mul(CELL).log()
    torch.testing.assert_close(best.log_prob(GRID), log_q, atol=1e-3, rtol=1e-4)
    q = log_q.exp() * CELL
    assert gold == pytest.approx(float((q * reward).sum()), abs=1e-3)
    assert kl == pytest.approx(float((q * (log_q - log_p)).sum()), abs=1e-3)


def test_annotators_agree_with_gold_more_often_than_not_and_more_on_clear_pairs() -> None:
    world = Gaussians()
    first, second = world.demonstrations(2000, seed=1), world.demonstrations(2000, seed=2)
    judged = world.compare(first, second, seed=0)
    gap = world._gold(first) - world._gold(second)
    right = torch.tensor([j.rank == (0, 1) for j in judged]) == (gap > 0)
    assert 0.6 < right.float().mean() < 0.98
    assert right[gap.abs() > 1].float().mean() > right[gap.abs() < 0.3].float().mean()


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
def test_a_base_policy_is_built_once_and_follows_the_demonstrations(kind: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("REWARDKIT_CACHE", str(tmp_path))
    world = Gaussians(2)
    policy = world.base_policy(kind, steps=400)  # type: ignore[arg-type]
    monkeypatch.setattr(Gaussians, "_train", None)
    again = world.base_policy(kind, steps=400)  # type: ignore[arg-type]
    assert all(torch.equal(a, b) for a, b in zip(policy.module.parameters(), again.module.parameters(), strict=True))
    rollout = policy.sample(world.prompts, 500, sampling=Denoise(20), seed=0)
    untrained = world.policy(kind).sample(world.prompts, 500, sampling=Denoise(20), seed=0)  # type: ignore[arg-type]

    def likelihood(r) -> float:
        return sum(
            float(world.data[p].log_prob(torch.stack([s.output for s in r.samples if s.prompt == p])).mean())
            for p in world.prompts
        )

    assert likelihood(rollout) > likelihood(untrained) + 1


def test_regularised_rl_approaches_the_closed_form(tmp_path, monkeypatch) -> None:
    """E[gold] - beta KL rises towards its known maximum and does not pass it."""
    monkeypatch.setenv("REWARDKIT_CACHE", str(tmp_path))
    world, beta, how = Gaussians(2), 0.3, Denoise(8)
    policy = world.base_policy("diffusion", steps=800)
    best = [world.regularised(p, beta) for p in world.prompts]
    optimum = sum(gold - beta * kl for _, gold, kl in best) / len(best)
    credit = chain(partial(kl_penalty, coef=beta), rloo, whiten)
    run = online(
        Learner(policy, lr=5e-4), PromptSet(world.prompts), world.gold, credit, clipped, reference="start", n=48,
        batch=2, inner=2, steps=90, sampling=how,
    )  # fmt: skip
    gaps = []
    for turn in run:
        if turn.step in (1, 90):
            found = world.measure(policy, n=1000, sampling=how)
            gaps.append(optimum - (found["gold"] - beta * found["kl"]))
    assert gaps[-1] < 0.5 * gaps[0]
    assert gaps[-1] > -0.1, "beyond the optimum: the reward, the KL or the closed form is wrong"


def test_gold_has_gradients_and_reads_the_users_prompt() -> None:
    world = Gaussians(1)
    x = torch.zeros(3, 2, requires_grad=True)
    world.gold.of(x, ["A"] * 3).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, SHARPNESS * world.gold.centres["A"].expand(3, 2))
    with pytest.raises(KeyError, match="has the prompts"):
        world.condition("Z")
