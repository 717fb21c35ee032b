"""Given outputs led back up the deterministic sampler, to the noise that the model itself would have made them of."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from rewardkit.policies.diffusion.process import Process, like
from rewardkit.registry import entry


@entry(
    "policies.diffusion:encode",
    aliases=("objectives.diffusion:ddim_inversion", "Inverted"),
    tags=("diffusion", "flow", "offline"),
    source="Song et al. 2021 (DDIM), arXiv:2010.02502, section 4.3; for preferences: Lu et al. 2025 (InPO), "
    "arXiv:2503.18454",
)
@dataclass(frozen=True)
class Inverted:
    """How ``encode`` finds the noise of a given output: by inversion and not by chance.

    ``policy.encode(samples, inverted=Inverted())`` gives rows that every objective reads as it reads those of
    ``encode(samples)``: ``dpo(over="position")`` on them is InPO. Rows of one prompt share their times, as they do
    without inversion; the noise is each row's own, found by the weights of the moment, without gradient.

    Args:
        steps: of the sampler, from the data up to each time that is drawn. eta: noise added at each, in standard
            deviations of the process given the data (InPO adds 0.1 of it).

    >>> from rewardkit.policies.diffusion import DiffusionPolicy, Flow, PointNet
    >>> from rewardkit.types import Sample
    >>> policy = DiffusionPolicy(PointNet(2, width=8, depth=1), Flow(), (2,), draws=3)
    >>> policy.encode([Sample("p", torch.ones(2))], inverted=Inverted(4)).inputs["noise"].shape
    torch.Size([1, 3, 2])
    """

    steps: int = 10
    eta: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.eta < 0:
            raise ValueError(f"Inverted needs at least one step and eta >= 0, not {self.steps} and {self.eta}")


@torch.no_grad()
def invert(
    process: Process,
    network: Callable[[Tensor, Tensor], Tensor],
    clean: Tensor,
    time: Tensor,
    how: Inverted,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The noise of each output: ``x_t = a clean + b noise`` is where the inverted sampler arrives at ``time``.

    A step is that of the sampler solved for the noisier state, with what the network says of the less noisy one at the
    noisier time, as diffusers' ``DDIMInverseScheduler`` has it.

    Args:
        network: ``(x [N, ...], time [N]) -> [N, ...]``. clean: ``[N, ...]``. time: ``[N]``.

    Raises:
        ValueError: for a network that predicts the data, which says nothing of the noise in what has none.
    """
    if getattr(process, "prediction", None) == "sample":
        raise ValueError("a network that predicts the data cannot be inverted from them: train for epsilon or v")
    x, times = clean, process.path(time, how.steps).unbind(1)
    for now, then in itertools.pairwise(times):
        a, b = process.ode(then, now)
        x = (x - like(b, x) * network(x, then)) / like(a, x)
        if how.eta:
            z = torch.randn(x.shape, generator=generator).to(x)
            x = x + how.eta * like(_deviation(process, now, then), x) * z
    a, b = process.scales(time)
    return (x - like(a, x) * clean) / like(b.clamp(min=1e-6), x)


def _deviation(process: Process, less: Tensor, more: Tensor) -> Tensor:
    """Standard deviation of the less noisy of two states given the other and the data: ``[N]``; 0 at the data."""
    (a, b), (a_more, b_more) = process.scales(less), process.scales(more)
    return (b / b_more) * (b_more.square() - (a_more / a * b).square()).clamp(min=0).sqrt()
