"""What a differentiable reward says of an output, with gradients through the last steps of the sampler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from rewardkit.types import Sample


@dataclass(frozen=True)
class PathValue:
    """Asked of :meth:`DiffusionPolicy.evaluate`, under the name ``path_value``, for the objective ``path_gradient``.

    Args:
        fn: ``(outputs [B, ...], samples) -> [B]``, with gradients; a reward's own function, not its ``Scores``.
        last: steps through which the gradient flows; those before it are taken as they were drawn.
    """

    fn: Callable[[Tensor, Sequence[Sample]], Tensor]
    last: int = 1

    def __post_init__(self) -> None:
        if self.last < 1:
            raise ValueError(f"PathValue.last must be at least one step, not {self.last}")

    @property
    def __name__(self) -> str:
        return "path_value"
