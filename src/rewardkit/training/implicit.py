"""Gradients through the solution of an inner problem, by the implicit function theorem: no unrolled steps.

Where ``theta`` solves ``grad_theta L(theta, phi) = 0``, an outer loss ``F(theta)`` has the gradient::

    dF/dphi = -(dF/dtheta) H^-1 (d grad_theta L / dphi),     H = d grad_theta L / dtheta

``H`` is never formed: a truncated Neumann series needs its products with vectors alone. Second derivatives need every
parameter and the whole graph in one process: several ranks are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rewardkit.registry import entry
from rewardkit.training.accumulate import Accumulator
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term


def loss_of(learner: Learner, *terms: Term) -> Tensor:
    """The sum of ``terms`` that :meth:`Learner.step` would go down, as a number with its graph.

    Raises:
        ValueError: with several ranks, or if nothing in the terms depends on the model.
    """
    if learner.ranks.count > 1:
        raise ValueError("second derivatives need the whole graph in one process: run without accelerate launch")
    found: list[Tensor] = []
    Accumulator(learner.model, learner.ranks, None, "no", found.append).run(terms)
    if not found:
        raise ValueError("the terms do not depend on the model: there is nothing to differentiate")
    return torch.stack(found).sum()


def gradient(loss: Tensor, params: Sequence[Tensor]) -> list[Tensor]:
    """The gradient of a loss, itself with a graph; 0 for parameters that it does not read."""
    found = torch.autograd.grad(loss, list(params), create_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(params, found, strict=True)]


@entry("training:hvp", tags=("second-order",), source="Pearlmutter 1994, Fast exact multiplication by the Hessian")
def hvp(grads: Sequence[Tensor], params: Sequence[Tensor], vector: Sequence[Tensor]) -> list[Tensor]:
    """``vector^T d grads / d params``, without graph: the product with the Hessian where ``grads`` is a gradient, and
    with the transposed Jacobian of any other update rule.

    Args:
        grads: with their graph, shaped like ``vector``. params: what to differentiate by.

    >>> x = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> hvp(gradient(x[0] ** 2 * x[1], [x]), [x], [torch.tensor([1.0, 0.0])])[0].tolist()
    [4.0, 2.0]
    """
    live = [(g, v) for g, v in zip(grads, vector, strict=True) if g.requires_grad]
    if not live:
        return [torch.zeros_like(p) for p in params]
    found = torch.autograd.grad(
        [g for g, _ in live], list(params), [v for _, v in live], retain_graph=True, allow_unused=True
    )
    return [torch.zeros_like(p) if g is None else g for p, g in zip(params, found, strict=True)]


@entry("training:neumann_solve", tags=("second-order",), source="Lorraine et al. 2020, arXiv:1911.02590, algorithm 3")
def neumann_solve(
    product: Callable[[list[Tensor]], list[Tensor]], vector: Sequence[Tensor], *, rate: float, steps: int
) -> list[Tensor]:
    """``H^-1 vector`` as ``rate * sum_{i < steps} (1 - rate H)^i vector``.

    A direction of curvature ``c`` is solved up to ``(1 - rate c)^steps`` of itself; flat ones are held back instead of
    blowing up.

    Args:
        product: ``v -> H v``. rate: below ``2 / (largest curvature)``. steps: terms of the series.

    Raises:
        FloatingPointError: if the series diverges.

    >>> double = lambda v: [2 * x for x in v]
    >>> round(neumann_solve(double, [torch.tensor([3.0])], rate=0.4, steps=50)[0].item(), 4)
    1.5
    """
    term = [v.clone() for v in vector]
    total = [v.clone() for v in vector]
    first = float(_norm(term))
    for _ in range(steps - 1):
        term = [t - rate * h for t, h in zip(term, product(term), strict=True)]
        total = [s + t for s, t in zip(total, term, strict=True)]
        size = float(_norm(term))
        if not size <= 1e3 * first:
            raise FloatingPointError(
                f"the Neumann series diverges (a term is {size:.3g}, the first was {first:.3g}): lower rate={rate}, or "
                "come nearer to the solution of the inner problem first"
            )
    return [rate * s for s in total]


def _norm(vector: Sequence[Tensor]) -> Tensor:
    return torch.stack([v.square().sum() for v in vector]).sum().sqrt()


def implicit_value(learner: Learner, terms: Sequence[Term], solved: Sequence[Tensor]) -> Tensor:
    """``solved^T grad_theta L(theta, phi)``, a number whose gradient by ``phi`` is minus ``dF/dphi``.

    Args:
        learner: holds ``theta``, at the solution. terms: ``L``, with ``phi`` live in what they read.
        solved: ``H^-1 dF/dtheta`` by :func:`neumann_solve`.
    """
    grads = gradient(loss_of(learner, *terms), list(learner.params.values()))
    return torch.stack([(g * v).sum() for g, v in zip(grads, solved, strict=True)]).sum()
