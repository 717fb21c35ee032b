"""What a differentiable reward says of an output that still has its gradient: one request for every kind of policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from rewardkit.types import Sample


@dataclass(frozen=True)
class PathValue:
    """Asked of a policy's ``evaluate``, under the name ``path_value``, for the objective ``path_gradient``.

    Args:
        fn: ``(outputs [B, ...], samples) -> [B]``, with gradients; a reward's own function, not its ``Scores``. The
            outputs are what the policy can differentiate: of a diffusion policy the outputs themselves, of a table the
            probabilities of its actions, ``[B, V]``.
        last: steps through which the gradient flows; those before it are taken as they were drawn. A random one is
            drawn by the caller, for each batch anew.
        checkpoint: keep only the states between a sampler's steps, and compute each step again on the way back: memory
            of one step instead of all, for another forward pass.
    """

    fn: Callable[[Tensor, Sequence[Sample]], Tensor]
    last: int = 1
    checkpoint: bool = False

    def __post_init__(self) -> None:
        if self.last < 1:
            raise ValueError(f"PathValue.last must be at least one step, not {self.last}")

    def __call__(self, outputs: Tensor, samples: Sequence[Sample]) -> Tensor:
        return self.fn(outputs, samples)

    @property
    def __name__(self) -> str:
        return "path_value"
