"""What the theory of KL-regularised alignment says exactly, on distributions that can be listed.

Distributions are log-probabilities over the last axis, ``[..., N]``, ``-inf`` for what cannot happen; KL is in nats.
Float64 is advised.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rewardkit.guidance.best_of_n import best_of_n_kl
from rewardkit.registry import entry


def kl(log_q: Tensor, log_p: Tensor) -> Tensor:
    """``KL(q || p)`` over the last axis: ``[..., N] -> [...]``; outcomes with ``q = 0`` contribute nothing.

    NaN in, NaN out: a distribution that went wrong is not at distance 0.
    """
    q = log_q.exp()
    return torch.where(q == 0, torch.zeros_like(q), q * (log_q - log_p)).sum(-1)


def tilted(log_p: Tensor, reward: Tensor, beta: float) -> Tensor:
    """The policy that maximises ``E[reward] - beta * KL(. || p)``: ``log p + reward / beta - log Z``.

    Args:
        log_p: ``[..., N]``. reward: ``[..., N]``. beta: above 0, in units of reward a nat.

    >>> tilted(torch.tensor([0.5, 0.5]).log(), torch.tensor([0.0, 1.0]), 1.0).exp()
    tensor([0.2689, 0.7311])
    """
    if not beta > 0:
        raise ValueError(f"tilted needs beta above 0, not {beta}")
    return (log_p + reward / beta).log_softmax(-1)


def tilted_to(log_p: Tensor, reward: Tensor, budget: float) -> Tensor:
    """The best expected reward within ``KL(. || p) <= budget``: the tilt ``[N] -> [N]`` whose KL is the budget.

    KL grows with the tilt, so its strength is found by bisection. A budget that no tilt reaches gives ``p`` given
    that the reward is the largest that it can give.

    Raises:
        ValueError: for a negative budget.
    """
    if budget < 0:
        raise ValueError(f"tilted_to needs a budget of at least 0, not {budget}")
    largest = reward[log_p > -math.inf].max()
    best = torch.where(reward == largest, log_p, torch.full_like(log_p, -math.inf)).log_softmax(-1)
    if budget >= float(kl(best, log_p)):
        return best
    low, high = 0.0, 1.0
    while float(kl((log_p + high * reward).log_softmax(-1), log_p)) < budget:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if float(kl((log_p + middle * reward).log_softmax(-1), log_p)) < budget:
            low = middle
        else:
            high = middle
    return (log_p + (low + high) / 2 * reward).log_softmax(-1)


def best_of_n_distribution(log_p: Tensor, reward: Tensor, n: float) -> Tensor:
    """Log-probabilities of the best of ``n`` independent draws, ties broken at random: ``[N] -> [N]``.

    An outcome of reward v has ``(F(v)^n - F(v-)^n) * p(y) / p(reward = v)`` with F the distribution of the reward
    under p. ``n`` need not be whole. What p cannot give is given by no number of draws.

    >>> best_of_n_distribution(torch.tensor([0.5, 0.5]).log(), torch.tensor([0.0, 1.0]), 2).exp()
    tensor([0.2500, 0.7500])
    """
    if n < 1:
        raise ValueError(f"best_of_n_distribution needs n of at least 1, not {n}")
    possible = log_p.exp() > 0
    log_p_K = log_p[possible]
    levels, index_K = torch.unique(reward[possible], return_inverse=True)  # ascending
    mass = torch.zeros(len(levels), dtype=log_p.dtype).index_add_(0, index_K, log_p_K.exp())
    upper = mass.cumsum(0) / mass.sum()
    lower = torch.cat([mass.new_zeros(1), upper[:-1]])
    # F^n - F-^n = F-^n * expm1(n log(F / F-)) loses no digits where F and F- are close
    ratio = n * torch.log1p(mass / mass.sum() / lower)
    # far above F- the difference is F^n itself and expm1 overflows; at the lowest level F- is 0
    log_step = torch.where(ratio > 30, n * upper.log(), n * lower.log() + torch.expm1(ratio).log())
    best = torch.full_like(log_p, -math.inf)
    best[possible] = (log_step[index_K] + log_p_K - mass.log()[index_K]).log_softmax(-1)
    return best


@entry(
    "evals:closed_form_checks",
    tags=("exact",),
    source="Yang et al. 2024, Asymptotics of Language Model Alignment (2404.01730); Beirami et al. 2024 (2401.01879)",
)
def closed_form_checks(log_p: Tensor, reward: Tensor, n: float) -> dict[str, float]:
    """Best-of-n beside the optimal KL-regularised policy of budget ``log n``, on one listed distribution.

    Args:
        log_p: ``[N]``. reward: ``[N]``. n: draws.

    Returns:
        ``reward_optimal``, ``reward_best_of_n``; ``kl_best_of_n`` with its ``kl_bound``; ``kl_between``, of best-of-n
        to the optimum.

    >>> p = torch.full((8,), 1 / 8, dtype=torch.float64)
    >>> found = closed_form_checks(p.log(), torch.arange(8.0, dtype=torch.float64), 4)
    >>> found["kl_best_of_n"] <= found["kl_bound"], found["reward_best_of_n"] <= found["reward_optimal"]
    (True, True)
    """
    best, optimum = best_of_n_distribution(log_p, reward, n), tilted_to(log_p, reward, math.log(n))
    return {
        "reward_optimal": float((optimum.exp() * reward).sum()),
        "reward_best_of_n": float((best.exp() * reward).sum()),
        "kl_best_of_n": float(kl(best, log_p)),
        "kl_bound": best_of_n_kl(n),
        "kl_between": float(kl(best, optimum)),
    }
