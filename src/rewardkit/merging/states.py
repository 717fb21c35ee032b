"""States of models: what merging takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

State = Mapping[str, Tensor]
"""Tensors by name, as :func:`rewardkit.policies.weights.read` gives them and ``Learner.load`` takes them."""


def same_names(first: State, *others: State) -> None:
    """Check that the states are of the same kind of model.

    Raises:
        ValueError: naming some of the tensors that are not in all, or not of one shape.
    """
    for other in others:
        odd = sorted(first.keys() ^ other.keys())
        if odd:
            raise ValueError(f"the two models have different parameters: {odd[:5]}{' ...' if len(odd) > 5 else ''}")
        odd = [n for n in first if first[n].shape != other[n].shape]
        if odd:
            raise ValueError(f"the two models have parameters of different shapes: {odd[:5]}")


def merged(fn: Callable[..., Tensor], first: State, *others: State) -> dict[str, Tensor]:
    """``fn`` of each floating tensor of all states; what is not floating (a counter) is the first's."""
    same_names(first, *others)
    return {n: fn(x, *(o[n].to(x) for o in others)) if x.is_floating_point() else x.clone() for n, x in first.items()}
