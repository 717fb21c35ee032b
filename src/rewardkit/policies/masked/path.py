"""What is asked of a masked diffusion policy along whole paths of its sampler: a reward's gradient, the KL of rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rewardkit.policies.path import PathValue


@dataclass(frozen=True)
class GumbelValue(PathValue):
    """A differentiable reward of sampled sequences, for the objective ``path_gradient``.

    A token was drawn as the largest of log-prob plus Gumbel noise. The draw is replayed with the same noise, and its
    gradient is that of a softmax of the same sums over ``temperature``.

    Args:
        fn: ``(outputs [B, L, V], samples) -> [B]``, of one-hot or relaxed rows, ``V`` the codec's ``size``; padded
            positions are zeros. last: steps with gradient.
        temperature: of the relaxation. soft: tokens are the softmax itself, in the states and in the output: the
            gradient is then exact, of a reward of sequences that cannot exist. Otherwise they are the drawn tokens
            (straight-through): the reward is that of the samples, its gradient an estimate.

    Source: Jang et al. 2017, arXiv:1611.01144; Wang et al. 2025 (DRAKES), arXiv:2410.13643, section 4.
    """

    temperature: float = 1.0
    soft: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0:
            raise ValueError(f"GumbelValue.temperature must be positive, not {self.temperature}")


@dataclass(frozen=True)
class PathKL:
    """KL of each step to another policy over the same path, ``path_kl`` ``[B, T]``, for ``discrete_path_kl``.

    At a step from time t to s every masked position is unmasked with probability ``(t - s) / t``, whatever the
    weights: the KL of the step is that times the sum over masked positions of ``KL(p || other)``. It is the KL of the
    two continuous-time chains' rates, ``sum_v [-p + q + p log(p / q)] / t``, times the step; as ``p`` and ``q`` are
    normalised the first two terms cancel. Summed over steps, and averaged over paths, it is the KL of the paths.

    Args:
        other: the policy of ``q``; evaluated without gradient for its weights.
        along: follow the relaxed path of this value, through whose states there is gradient too; default: the sampled
            path, taken as given.

    Source: Wang et al. 2025 (DRAKES), arXiv:2410.13643, equation 5. Their code divides by t and leaves the step out,
    which is a factor of alpha.
    """

    other: Any
    along: GumbelValue | None = None

    @property
    def __name__(self) -> str:
        return "path_kl"
