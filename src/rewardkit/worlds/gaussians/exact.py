"""The world's own denoiser in closed form: a diffusion policy whose only error is that of its steps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rewardkit.policies.diffusion import Diffusion, DiffusionPolicy
from rewardkit.worlds.gaussians.mixture import Mixture
from rewardkit.worlds.gaussians.world import Gaussians


class ExactNoise(nn.Module):
    """``E[noise | x_t]`` where data are Gaussian mixtures, one for each prompt.

    With ``x_t = sqrt(a) x_0 + sqrt(1 - a) noise`` a component ``N(m, S)`` becomes ``N(sqrt(a) m, a S + (1 - a) I)``,
    and the noise in expectation is ``-sqrt(1 - a)`` times the score of the mixture of these.

    Args:
        mixtures: of equal size. alphas: ``a_t``, ``[train_steps]``.
    """

    def __init__(self, mixtures: Sequence[Mixture], alphas: Tensor) -> None:
        super().__init__()
        values, vectors = torch.linalg.eigh(torch.stack([m.covariances for m in mixtures]).double())
        self.alphas = nn.Parameter(alphas.float(), requires_grad=False)
        self.means = nn.Parameter(torch.stack([m.means for m in mixtures]).float())
        self.log_weights = nn.Parameter(torch.stack([m.log_weights for m in mixtures]).float())
        self.values, self.vectors = nn.Parameter(values.float()), nn.Parameter(vectors.float())

    def forward(self, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """``[N, D]``, ``[N]``, one of the prompts ``[N, P]``, to ``[N, D]``."""
        row, a = condition.argmax(-1), self.alphas[time.long()][:, None, None]
        apart = x[:, None] - a.sqrt() * self.means[row]
        spread = a * self.values[row] + 1 - a
        turned = torch.einsum("nkdi,nkd->nki", self.vectors[row], apart)
        log_p = self.log_weights[row] - 0.5 * (turned.square() / spread + spread.log()).sum(-1)
        pull = torch.einsum("nkdi,nki->nkd", self.vectors[row], turned / spread)
        return (1 - a[:, 0]).sqrt() * (log_p.softmax(-1)[..., None] * pull).sum(1)


def exact_policy(world: Gaussians, *, train_steps: int = 1000) -> DiffusionPolicy:
    """The policy whose network is the truth about the world's demonstrations; there is nothing to train.

    >>> from rewardkit.policies.diffusion import Denoise
    >>> world = Gaussians(2)
    >>> drawn = exact_policy(world).sample(["A"], 500, sampling=Denoise(50), seed=0)
    >>> apart = torch.stack([s.output for s in drawn.samples]).mean(0) - world.data["A"].moments()[0]
    >>> bool(apart.norm() < 0.3)
    True
    """
    process = Diffusion.cosine(train_steps)
    net = ExactNoise([world.data[p] for p in world.prompts], process.alphas)
    return DiffusionPolicy(net, process, (2,), condition=world.condition)
