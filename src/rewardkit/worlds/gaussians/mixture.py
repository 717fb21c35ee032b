"""Gaussian mixtures with exact densities, and what a quadratic reward makes of them in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Mixture:
    """A mixture of ``K`` Gaussians in ``D`` dimensions, in float64.

    Args:
        log_weights: ``[K]``, normalised. means: ``[K, D]``. covariances: ``[K, D, D]``.

    >>> one = Mixture(torch.zeros(1), torch.zeros(1, 2), torch.eye(2)[None])
    >>> round(one.log_prob(torch.zeros(1, 2)).item(), 4)
    -1.8379
    """

    log_weights: Tensor
    means: Tensor
    covariances: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """Nats: ``[N, D] -> [N]``."""
        parts = torch.distributions.MultivariateNormal(self.means.double(), self.covariances.double())
        return (parts.log_prob(x.double()[:, None, :]) + self.log_weights.double()).logsumexp(-1)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """``[n, D]``, float32."""
        which = torch.multinomial(self.log_weights.exp(), n, replacement=True, generator=generator)
        z = torch.randn(n, self.means.shape[1], generator=generator, dtype=torch.float64)
        roots = torch.linalg.cholesky(self.covariances.double())
        return (self.means.double()[which] + (roots[which] @ z[:, :, None])[:, :, 0]).float()

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean ``[D]`` and covariance ``[D, D]``."""
        w = self.log_weights.double().exp()
        mean = w @ self.means.double()
        apart = self.means.double() - mean
        return mean, torch.einsum("k,kij->ij", w, self.covariances.double()) + torch.einsum(
            "k,ki,kj->ij", w, apart, apart
        )

    def quadratic(self, centre: Tensor, sharpness: float) -> float:
        """``E[-sharpness / 2 * |x - centre|**2]``."""
        mean, covariance = self.moments()
        return -0.5 * sharpness * float((mean - centre.double()).square().sum() + covariance.trace())

    def tilted(self, centre: Tensor, sharpness: float) -> tuple[Mixture, float]:
        """``p(x) exp(-sharpness / 2 * |x - centre|**2) / Z`` and ``log Z``: again a mixture of Gaussians.

        A component of precision ``P`` and mean ``m`` gets precision ``P' = P + s I``, mean ``m' = P'^-1 (P m + s c)``,
        and its weight times ``sqrt(|P| / |P'|) exp(-(m.P m + s c.c - m'.P' m') / 2)``.
        """
        c, eye = centre.double(), torch.eye(self.means.shape[1], dtype=torch.float64)
        old = torch.linalg.inv(self.covariances.double())
        new = old + sharpness * eye
        means = self.means.double()
        pulled = (old @ means[:, :, None])[:, :, 0] + sharpness * c
        moved = torch.linalg.solve(new, pulled[:, :, None])[:, :, 0]
        square = (means * (old @ means[:, :, None])[:, :, 0]).sum(-1) + sharpness * c @ c - (moved * pulled).sum(-1)
        log_w = self.log_weights.double() + 0.5 * (torch.logdet(old) - torch.logdet(new) - square)
        log_z = float(log_w.logsumexp(0))
        return Mixture(log_w - log_z, moved, torch.linalg.inv(new)), log_z


def ring(components: int, *, radius: float, spread: float, turn: float) -> Mixture:
    """Equal round components on a circle, the first at the angle ``turn``."""
    angles = turn + torch.arange(components, dtype=torch.float64) * 2 * math.pi / components
    means = radius * torch.stack([angles.cos(), angles.sin()], 1)
    weights = torch.full((components,), -math.log(components), dtype=torch.float64)
    return Mixture(weights, means, spread**2 * torch.eye(2, dtype=torch.float64).expand(components, 2, 2))
