"""Editing by optimal control: small pushes along a sampler's trajectory that raise a reward of where it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from rewardkit.guidance.base import Guided
from rewardkit.policies.diffusion.policy import DiffusionPolicy
from rewardkit.policies.diffusion.process import Process, like
from rewardkit.policies.diffusion.sampling import Denoise
from rewardkit.policies.diffusion.stepwise import NoisyState
from rewardkit.registry import entry
from rewardkit.types import Cost, Rollout, Sample

Dynamics = Callable[[Tensor, int], Tensor]
"""``f(x [N, ...], k) -> [N, ...]``, differentiable: one step without control."""
Network = Callable[[Tensor, Tensor], Tensor]
"""``(x [N, ...], time [N]) -> [N, ...]``."""
Source = Literal["inversion", "noising"]


@dataclass(frozen=True)
class Adam:
    """How controls move to where the adjoints point.

    Args:
        iterations: each a pass forward and one back. lr: of Adam, times ``decay`` after each, down to ``floor`` of it.
    """

    iterations: int = 20
    lr: float = 5e-3
    decay: float = 0.95
    floor: float = 0.5


def controlled(
    f: Dynamics, source: Tensor, gradient: Callable[[Tensor], Tensor], weights: Tensor, adam: Adam = Adam()
) -> tuple[Tensor, Tensor]:
    """Controls ``u`` of ``x_{k+1} = f(x_k, k) + n_k + u_k`` that meet Pontryagin's condition, and the trajectory.

    The residuals ``n_k`` make the trajectory without control the source. With ``a_K = -gradient(x_K)`` and
    ``a_k = J_f(x_k)^T a_{k+1}``, the condition of ``min sum |u_k|^2 / (2 w_k) - reward(x_K)`` is
    ``u_k = -w_k a_{k+1}``; ``u`` is moved there by Adam and the trajectory rolled anew, ``iterations`` times. (The
    authors' code takes ``a_k`` for ``a_{k+1}``, the same in the limit of small steps; this one is exact at any.)

    Args:
        source: ``[K + 1, N, ...]``. gradient: of the reward at ``x_K``, ``[N, ...]``. weights: ``[K]``.

    Returns:
        ``u`` ``[K, N, ...]``, ``x`` ``[K + 1, N, ...]``.
    """
    steps = len(source) - 1
    with torch.no_grad():
        residual = torch.stack([source[k + 1] - f(source[k], k) for k in range(steps)])
    u, x = torch.zeros_like(residual).requires_grad_(), source
    optimizer = torch.optim.Adam([u], lr=adam.lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: max(adam.decay**i, adam.floor))
    for _ in range(adam.iterations):
        a, target = -gradient(x[-1]), torch.zeros_like(residual)
        for k in reversed(range(steps)):
            target[k] = -weights[k] * a
            leaf = x[k].detach().requires_grad_()
            with torch.enable_grad():
                [a] = torch.autograd.grad(f(leaf, k), leaf, a)
        u.grad = 2 * (u.detach() - target)
        optimizer.step()
        schedule.step()
        x = _rolled(f, source[0], residual + u.detach())
    return u.detach(), x


@torch.no_grad()
def _rolled(f: Dynamics, x: Tensor, pushes: Tensor) -> Tensor:
    path = [x]
    for k, push in enumerate(pushes):
        path.append(f(path[-1], k) + push)
    return torch.stack(path)


@torch.no_grad()
def source_path(
    process: Process, network: Network, clean: Tensor, times: Tensor, source: Source, generator: torch.Generator
) -> Tensor:
    """A trajectory that ends at given data: ``[K + 1, N, ...]``, noisiest first.

    Args:
        times: of its first ``K`` states, falling. source: ``inversion`` of the deterministic sampler, or ``noising``,
            the forward process step by step.
    """
    path, now = [clean], process.path(times[:1].to(clean.device).expand(len(clean)), 1)[:, 0]
    for time in reversed(times.unbind()):
        then = time.expand(len(clean)).to(now)
        if source == "inversion":
            a, b = (like(v, clean) for v in process.ode(then, now))
            path.append((path[-1] - b * network(path[-1], then)) / a)
        else:
            (a, b), (a_then, b_then) = process.scales(now), process.scales(then)
            fade, spread = a_then / a, (b_then.square() - (a_then / a * b).square()).clamp(min=0).sqrt()
            noise = torch.randn(clean.shape, generator=generator).to(clean)
            path.append(like(fade, clean) * path[-1] + like(spread, clean) * noise)
        now = then
    return torch.stack(path[::-1])


@entry(
    "guidance:trajectory_adjoint_control",
    aliases=("itoc",),
    tags=("diffusion", "flow", "gradients", "editing"),
    source="Chang et al. 2025 (ITOC), arXiv:2509.25845, algorithm 1, and the authors' code",
)
def trajectory_adjoint_control(
    policy: DiffusionPolicy,
    reward: Callable[[Tensor, Sequence[Sample]], Tensor],
    *,
    lam: float,
    depth: float = 0.5,
    source: Source = "inversion",
    adam: Adam = Adam(),
) -> Edited:
    """The policy that edits the outputs it is given: :meth:`Edited.sample` wants samples with an output.

    Args:
        policy: of any process. reward: ``(outputs [N, ...], samples) -> [N]``, with gradients. lam: its weight.
        depth: share of the sampler's steps, the last ones, through which the source is led and controlled.
        source: where the trajectory comes from, see :func:`source_path`.

    >>> from rewardkit.policies.diffusion import Flow, PointNet
    >>> policy = DiffusionPolicy(PointNet(2, width=8, depth=1), Flow(), (2,))
    >>> edited = trajectory_adjoint_control(policy, lambda x, samples: x[:, 0], lam=4.0, adam=Adam(lr=0.05))
    >>> after = edited.sample([Sample(None, torch.zeros(2))], seed=0).samples[0].output
    >>> bool(after[0] > 0.3), bool(after[1].abs() < 0.3)
    (True, True)
    """
    return Edited(policy, reward, lam, depth, source, adam)


class Edited(Guided):
    """See :func:`trajectory_adjoint_control`."""

    name = "trajectory-controlled"

    def __init__(
        self,
        policy: DiffusionPolicy,
        reward: Callable[[Tensor, Sequence[Sample]], Tensor],
        lam: float,
        depth: float,
        source: Source,
        adam: Adam,
    ) -> None:
        if not 0 < depth <= 1 or source not in ("inversion", "noising"):
            raise ValueError(f"depth lies in (0, 1] and source is 'inversion' or 'noising', not {depth} and {source!r}")
        self.policy, self.reward, self.lam, self.depth = policy, reward, lam, depth
        self.source, self.adam = source, adam

    def sample(
        self, start: Sequence[Any], n: int = 1, *, sampling: Denoise | None = None, seed: int | None = None
    ) -> Rollout:
        """``n`` edits of each start's output; with inversion they are all alike.

        Raises:
            ValueError: for a start without an output.
        """
        rows = [s for s in start for _ in range(n)]
        if any(not isinstance(s, Sample) or s.output is None for s in rows):
            raise ValueError("an edit begins with an output: give samples that have one")
        policy, how = self.policy, sampling or Denoise()
        count = max(1, round(self.depth * how.steps))
        first, times = how.steps - count, policy.process.times(how.steps)[how.steps - count :]
        how = replace(how, eta=0.0) if self.source == "inversion" else how
        chance = torch.Generator().manual_seed(int(torch.randint(2**62, ())) if seed is None else seed)
        state = policy.start([Sample(s.prompt) for s in rows], sampling=how, seed=0)
        clean = torch.stack([torch.as_tensor(s.output, dtype=torch.float32) for s in rows]).to(state.x)
        with torch.no_grad():
            clean = clean if policy.codec is None else policy.codec.encode(clean)

        def before(x: Tensor, i: int) -> NoisyState:
            return replace(state, x=x, i=i)

        def f(x: Tensor, k: int) -> Tensor:
            return policy.transition(before(x, first + k))[0]

        def network(x: Tensor, time: Tensor) -> Tensor:
            return policy.predict(before(x, first + int((times == time[0].cpu()).nonzero()[0])))

        def gradient(x: Tensor) -> Tensor:
            leaf = x.detach().requires_grad_()
            with torch.enable_grad():
                [g] = torch.autograd.grad(self.reward(policy.outputs(leaf), rows).sum(), leaf)
            return self.lam * g

        path = source_path(policy.process, network, clean, times, self.source, chance)
        _, x = controlled(f, path, gradient, self._weights(times, how).to(clean), self.adam)
        outputs = policy.outputs(x[-1]).detach().cpu()
        each = len(rows) * count * how.calls // how.steps
        passes = self.adam.iterations
        edits = [Sample(s.prompt, y, s.source, s.hidden) for s, y in zip(rows, outputs, strict=True)]
        cost = Cost(calls=each * (2 + 2 * passes), gradients=(each + len(rows)) * passes)
        return self.given(edits, n, how={"lam": self.lam, "depth": self.depth, "source": self.source}, cost=cost)

    def _weights(self, times: Tensor, how: Denoise) -> Tensor:
        """``1 / steps`` after inversion; after noising ``abar_next / abar - 1``, the noise that a step takes away."""
        if self.source == "inversion":
            return torch.full((len(times),), 1 / how.steps)
        a, _ = self.policy.process.scales(times)
        return ((torch.cat([a[1:], a.new_ones(1)]) / a).square() - 1).float()
