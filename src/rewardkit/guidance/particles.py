"""Particles: many partial outputs at once, weighed by a reward on the way and resampled, for any stepwise policy."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from rewardkit.guidance.lookahead import lookahead
from rewardkit.protocols import Reward, Stepwise
from rewardkit.types import Cost, Sample

Potential = Literal["difference", "max", "sum"]
Resampling = Literal["systematic", "multinomial"]
Proposal = Callable[[Any], tuple[Any, Tensor]]
"""From ``N`` rows of a state to an action each and ``log p(action) - log q(action)`` ``[N]``, policy and proposal."""


@dataclass(frozen=True)
class Steering:
    """How particles are steered towards ``p(x) exp(lam r(x)) / Z``.

    After some steps each particle is weighed by a potential of the reward ``r_t`` of what it looks like then, and the
    particles of a system are drawn again by their weights. Whatever the potentials on the way, the last one makes their
    product ``exp(lam r(x))``, so that weighted particles follow the target ever closer as they grow in number.

    Args:
        lam: inverse temperature, nats a unit of reward.
        potential: log of a potential over ``lam``: ``difference`` ``r_t - r_before``, ``max`` the largest ``r`` so
            far, ``sum`` the sum of all so far.
        every: weigh and resample after so many steps, or after these, counted from 1; never after the last.
        resampling: ``systematic`` has the lower variance; ``multinomial`` is the paper's.
        corrected: whether the last potential corrects the product. Without it the target is another one.
        completions: of the looks on the way, see :func:`rewardkit.guidance.lookahead.lookahead`.
        value: what scores the looks on the way, ``None`` for the reward itself.

    Raises:
        ValueError: naming the option that is out of range.
    """

    lam: float = 1.0
    potential: Potential = "difference"
    every: int | Collection[int] = 1
    resampling: Resampling = "systematic"
    corrected: bool = True
    completions: int = 0
    value: Reward | None = None

    def __post_init__(self) -> None:
        if self.potential not in ("difference", "max", "sum"):
            raise ValueError(f"Steering.potential is 'difference', 'max' or 'sum', not {self.potential!r}")
        if self.resampling not in ("systematic", "multinomial"):
            raise ValueError(f"Steering.resampling is 'systematic' or 'multinomial', not {self.resampling!r}")
        if isinstance(self.every, int) and self.every < 1:
            raise ValueError(f"Steering.every must be at least one step, not {self.every}")

    def due(self, step: int) -> bool:
        """Whether particles are weighed after this step, the first being 1."""
        return step % self.every == 0 if isinstance(self.every, int) else step in self.every

    def log_potential(self, now: Tensor, before: Tensor) -> Tensor:
        """Nats ``[M]`` for rewards ``now`` ``[M]`` after those ``before`` ``[M, s]``."""
        if self.potential == "max":
            return self.lam * torch.cat([before, now[:, None]], 1).amax(1)
        if self.potential == "sum":
            return self.lam * (before.sum(1) + now)
        return self.lam * (now - before[:, -1] if before.shape[1] else now)


@dataclass(frozen=True, eq=False)
class Particles:
    """``G`` systems of ``K`` particles.

    Args:
        samples: ``G * K``, those of a system together. log_weights: ``[G, K]``, normalised, nats.
        values: final rewards ``[G, K]``, NaN where the grader failed. log_z: ``[G]``, the exponential of each is an
            unbiased estimate of ``E_p[exp(lam r)]``. ess: effective sample size ``[G, R + 1]`` before each
            resampling, and at the end. steps: that the policy made, of all particles together: the part of
            ``cost.calls`` that is not the reward's. cost: of policy and reward.
    """

    samples: list[Sample]
    log_weights: Tensor
    values: Tensor
    log_z: Tensor
    ess: Tensor
    steps: int
    cost: Cost


@torch.no_grad()
def particles(
    policy: Stepwise,
    reward: Reward,
    starts: Sequence[Any],
    k: int,
    steering: Steering,
    *,
    proposal: Proposal | None = None,
    sampling: Any = None,
    seed: int | None = None,
) -> Particles:
    """A system of ``k`` particles for each start.

    Args:
        policy: any stepwise policy. reward: what the target is tilted by. starts: prompts, or partial samples.
        proposal: draws the steps in the policy's stead; weights are corrected by the ratio that it gives.
        sampling, seed: as in ``policy.start``.

    Raises:
        ValueError: if the grader failed on all final outputs of a system.
    """
    seed = int(torch.randint(2**62, ())) if seed is None else seed
    chance = torch.Generator().manual_seed(seed ^ 0x5EED)
    state = policy.start([s for s in starts for _ in range(k)], sampling=sampling, seed=seed)
    systems = len(starts)
    log_w = torch.zeros(systems, k, dtype=torch.float64)
    paid, seen = torch.zeros(systems * k, dtype=torch.float64), torch.zeros(systems * k, 0, dtype=torch.float64)
    log_z, ess, cost, step, steps = torch.zeros(systems, dtype=torch.float64), [], Cost(), 0, 0
    by = steering.value or reward
    while not bool(state.done.all()):
        steps += int((~state.done).sum())
        if proposal is None:
            state = policy.step(state, policy.propose(state)[0][:, 0])
        else:
            actions, ratio = proposal(state)
            state, log_w = policy.step(state, actions), log_w + ratio.double().cpu().reshape(systems, k)
        step += 1
        if not steering.due(step) or bool(state.done.all()):
            continue
        now, took = lookahead(policy, state, by, completions=steering.completions)
        # A look that the grader could not score says nothing: the reward before stands.
        before = seen[:, -1] if seen.shape[1] else torch.zeros_like(now)
        now = torch.where(now.isnan(), before, now)
        log_g = steering.log_potential(now, seen)
        log_w = log_w + log_g.reshape(systems, k)
        ess.append(effective_size(log_w))
        log_z = log_z + log_w.logsumexp(1) - math.log(k)
        rows = ancestors(log_w, steering.resampling, chance).flatten()
        state, cost = state.select(rows), cost + took
        paid, seen = (paid + log_g)[rows], torch.cat([seen, now[:, None]], 1)[rows]
        log_w = torch.zeros_like(log_w)
    final, took = lookahead(policy, state, reward)
    last = steering.lam * final - paid if steering.corrected else steering.log_potential(final, seen)
    log_w = log_w + torch.where(final.isnan(), -math.inf, last).reshape(systems, k)
    if bool((log_w == -math.inf).all(1).any()):
        raise ValueError(f"reward {reward.name!r} failed on all {k} particles of a start")
    return Particles(
        policy.look(state),
        log_w.log_softmax(1),
        final.reshape(systems, k),
        log_z + log_w.logsumexp(1) - math.log(k),
        torch.stack([*ess, effective_size(log_w)], 1),
        steps,
        cost + took + Cost(calls=steps),
    )


def effective_size(log_weights: Tensor) -> Tensor:
    """``(sum w)**2 / sum w**2`` over the last axis: how many equally weighted particles these are worth.

    >>> effective_size(torch.tensor([[0.0, 0.0, -math.inf, -math.inf]]))
    tensor([2.])
    """
    return (2 * log_weights.logsumexp(-1) - (2 * log_weights).logsumexp(-1)).exp()


def ancestors(log_weights: Tensor, resampling: Resampling, generator: torch.Generator) -> Tensor:
    """Rows to go on with, long ``[G, K]`` into ``G * K``, each as often as its weight says in expectation.

    Args:
        log_weights: ``[G, K]``, need not be normalised. Equal weights where none is finite.
    """
    systems, k = log_weights.shape
    w = log_weights.softmax(1).nan_to_num(1.0)
    if resampling == "multinomial":
        chosen = torch.multinomial(w, k, replacement=True, generator=generator)
    else:
        shift = torch.rand(systems, 1, generator=generator, dtype=torch.float64)
        at = (shift + torch.arange(k)) / k * w.sum(1, keepdim=True)
        chosen = torch.searchsorted(w.cumsum(1), at, right=True).clamp(max=k - 1)
    return chosen + torch.arange(systems)[:, None] * k
