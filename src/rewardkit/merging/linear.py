"""Straight lines in weight space: averages, moving averages, the way back to the start."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rewardkit.merging.states import State, merged
from rewardkit.registry import entry


@entry("merging:lerp", tags=("weight-space",), source="Utans 1996; Wortsman et al. 2022, arXiv:2203.05482")
def lerp(first: State, second: State, w: float) -> dict[str, Tensor]:
    """``(1 - w) * first + w * second``: the ends are exact; ``w`` outside [0, 1] extrapolates.

    Args:
        first, second: states of one kind of model. w: the share of ``second``.

    Raises:
        ValueError: for states of different models.

    >>> lerp({"a": torch.tensor([0.0, 2.0])}, {"a": torch.tensor([1.0, 4.0])}, 0.5)["a"].tolist()
    [0.5, 3.0]
    """
    return merged(lambda a, b: torch.lerp(a, b, w), first, second)


@entry(
    "merging:linear_interpolation_towards_init",
    aliases=("liti", "wise_ft", "lora_scale_interpolation"),
    tags=("weight-space",),
    source="Wortsman et al. 2021 (WiSE-FT), arXiv:2109.01903; Rame et al. 2024 (WARP), arXiv:2406.16768, section 3.3",
)
def towards_init(start: State, tuned: State, eta: float) -> dict[str, Tensor]:
    """``start + eta * (tuned - start)``: a sweep of ``eta`` from 1 to 0 gives up reward for nearness to the start.

    Args:
        start, tuned: states of one kind of model. eta: what is kept of the way from the start.

    >>> towards_init({"a": torch.zeros(1)}, {"a": torch.ones(1)}, 0.25)["a"].tolist()
    [0.25]
    """
    return lerp(start, tuned, eta)


@entry(
    "merging:ema_anchor",
    aliases=("ema",),
    tags=("weight-space",),
    source="Polyak & Juditsky 1992; as the anchor of a KL: Rame et al. 2024 (WARP), arXiv:2406.16768, section 3.1",
)
def ema(average: State, now: State, rate: float) -> dict[str, Tensor]:
    """One step of a moving average: ``(1 - rate) * average + rate * now``.

    A view of a policy becomes one, and a loop's reference with it, where the for-body moves it after each turn::

        anchor = policy.keep("ema")
        for turn in online(learner, ..., reference=anchor):
            write(anchor, ema(read(anchor), read(policy), 0.01))

    Args:
        average, now: states of one kind of model. rate: of 0.01, the average remembers some 100 turns.

    >>> ema({"a": torch.zeros(1)}, {"a": torch.ones(1)}, 0.01)["a"].item() < 0.02
    True
    """
    return lerp(average, now, rate)


@entry(
    "merging:uniform_soup",
    aliases=("model_soup",),
    tags=("weight-space",),
    source="Wortsman et al. 2022, arXiv:2203.05482",
)
def uniform_soup(states: Sequence[State]) -> dict[str, Tensor]:
    """The mean of the states.

    Args:
        states: at least one; fine-tuned from one start, or the mean is of no use.

    Raises:
        ValueError: for no states, or states of different models.

    >>> uniform_soup([{"a": torch.zeros(1)}, {"a": torch.ones(1)}])["a"].tolist()
    [0.5]
    """
    if not states:
        raise ValueError("uniform_soup needs at least one state")
    return merged(lambda *xs: torch.stack(xs).mean(0), *states)
