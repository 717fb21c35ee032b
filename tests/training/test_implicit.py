"""Implicit gradients: a quadratic and a softmax in closed form, a gridworld against differences of solved problems."""

from __future__ import annotations

import pytest
import torch

from rewardkit.objectives.imitation import sft
from rewardkit.objectives.path import path_gradient
from rewardkit.policies.path import PathValue
from rewardkit.policies.table import TablePolicy
from rewardkit.training.implicit import gradient, hvp, implicit_value, loss_of, neumann_solve
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Sample
from rewardkit.worlds.tables.grids import GOAL, GridWorld


def test_a_quadratic_inner_problem_has_the_gradient_of_its_closed_form() -> None:
    chance = torch.Generator().manual_seed(0)
    a, b, c = (torch.randn(3, 3, generator=chance, dtype=torch.float64) for _ in range(3))
    a, c = a @ a.T + torch.eye(3, dtype=torch.float64), c[0]
    phi = torch.ones(3, dtype=torch.float64, requires_grad=True)
    theta = torch.linalg.solve(a, b @ phi).detach().requires_grad_()
    grads = gradient(0.5 * theta @ a @ theta - theta @ b @ phi, [theta])
    rate = 1 / float(torch.linalg.eigvalsh(a).max())
    solved = neumann_solve(lambda v: hvp(grads, [theta], v), [c], rate=rate, steps=2000)
    found = -torch.autograd.grad((grads[0] * solved[0]).sum(), phi)[0]
    torch.testing.assert_close(found, b.T @ torch.linalg.solve(a, c))


def test_an_update_that_is_no_gradient_is_transposed() -> None:
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    update = torch.tensor([[1.0, 2.0], [0.0, 3.0]], dtype=torch.float64) @ x
    assert hvp([update], [x], [torch.tensor([1.0, 0.0], dtype=torch.float64)])[0].tolist() == [1.0, 2.0]


def test_a_series_that_diverges_says_so() -> None:
    with pytest.raises(FloatingPointError, match="lower rate"):
        neumann_solve(lambda v: [10 * x for x in v], [torch.ones(1)], rate=1.0, steps=20)


def test_the_loss_is_the_learners_own() -> None:
    policy = TablePolicy(["x"], ["a", "b", "c"], logits=torch.randn(1, 1, 3, dtype=torch.float64))
    learner = Learner(policy)
    terms = (Term(policy.encode([Sample("x", "a")]), sft), Term(policy.encode([Sample("x", "b")]), sft, coef=0.3))
    ours = torch.autograd.grad(loss_of(learner, *terms), policy.logits)[0]
    torch.testing.assert_close(ours, learner.grads(*terms)["logits"])


def _implicit(learner, inner, outer, phi, rate, steps):
    params = list(learner.params.values())
    grads = gradient(loss_of(learner, inner(phi.detach())), params)
    wanted = [learner.grads(outer)[n] for n in learner.params]
    solved = neumann_solve(lambda v: hvp(grads, params, v), wanted, rate=rate, steps=steps)
    return -torch.autograd.grad(implicit_value(learner, [inner(phi)], solved), phi)[0]


def test_a_regularised_bandit_has_the_gradient_of_its_softmax() -> None:
    """The inner solution is ``softmax(phi / entropy)``, the outer loss minus its mean of another reward."""
    phi = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64, requires_grad=True)
    real, entropy = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64), 0.5
    policy = TablePolicy(["x"], ["a", "b", "c"], logits=(phi.detach() / entropy)[None, None])
    data = policy.encode([Sample("x", "a")])

    def inner(reward):
        value = PathValue(lambda p, samples: (p * (reward - entropy * p.log())).sum(-1))
        return Term(data, path_gradient, want=(value,))

    outer = Term(data, path_gradient, want=(PathValue(lambda p, samples: (p * real).sum(-1)),))
    found = _implicit(Learner(policy), inner, outer, phi, rate=2.0, steps=400)
    wanted = torch.autograd.grad(-((phi / entropy).softmax(-1) * real).sum(), phi)[0]
    torch.testing.assert_close(found, wanted, atol=1e-8, rtol=1e-6)


def test_a_gridworld_has_the_gradient_of_differences_through_its_solution() -> None:
    world = GridWorld(2, seed=0, mud=0, pits=0, goal=3, discount=0.8)
    primary, entropy = world.features[..., GOAL], 0.3
    start = primary + 0.1 * torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def value(reward, weight=entropy):
        return PathValue(lambda p, samples: world.mdp.values(p, reward - weight * p.log()))

    def solved(reward):
        """By soft policy iteration, to machine precision."""
        logits = torch.zeros(4, 4, dtype=torch.float64)
        for _ in range(60):
            p = logits.softmax(-1)
            logits = world.mdp.ahead(reward, world.mdp.values(p, reward - entropy * p.log())) / entropy
        return TablePolicy(world.cells, world.actions, logits=logits[:, None])

    policy = solved(start)
    data = policy.encode([Sample(c, world.actions[0]) for c in world.cells])
    phi = start.clone().requires_grad_()
    found = _implicit(
        Learner(policy),
        lambda reward: Term(data, path_gradient, want=(value(reward),)),
        Term(data, path_gradient, want=(value(primary, 0.0),)),
        phi, rate=5.0, steps=1500,
    )  # fmt: skip

    def loss(reward):
        return -float(world.mdp.values(solved(reward).logits.detach()[:, 0].softmax(-1), primary).mean())

    for s, a in ((0, 0), (0, 1), (1, 3), (2, 2)):
        bump = torch.zeros_like(start)
        bump[s, a] = 1e-4
        difference = (loss(start + bump) - loss(start - bump)) / 2e-4
        assert float(found[s, a]) == pytest.approx(difference, rel=1e-3, abs=1e-6)
