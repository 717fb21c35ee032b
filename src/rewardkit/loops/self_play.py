"""Self-play on preferences: mirror descent towards a Nash policy, from pairs of the policy's own outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from rewardkit.loops.rounds import Round
from rewardkit.loops.rounds import rounds as all_rounds
from rewardkit.objectives.regression import difference_regression
from rewardkit.registry import entry
from rewardkit.training.fit import fit
from rewardkit.training.learner import Learner
from rewardkit.types import Rollout


@entry(
    "loops:self_play_nash",
    tags=("iterative", "game"),
    source="Zhang et al. 2025 (ONPO), arXiv:2502.16852, algorithm 1; plain: Zhang et al. 2024 (INPO), arXiv:2407.00617",
)
def self_play(
    learner: Learner,
    duel: Callable[[Any, int], Rollout],
    *,
    rate: float,
    rounds: int,
    optimistic: bool = True,
    epochs: float = 1,
    batch: int = 16,
    seed: int = 0,
) -> Iterator[Round]:
    """Rounds of playing against oneself, as an iterator; the policies played should be averaged.

    A round fits the base iterate on fresh pairs, from itself; the policy that plays next starts from the base, and, if
    it is optimistic, is fitted from there on the same pairs again. Both with the same loss and as many queries as plain
    mirror descent.

    Args:
        learner: holds the policy that plays. duel: ``duel(policy, round) -> Rollout``, pairs of its own outputs with
            ``rank``; round from 1.
        rate: nats a unit of win rate. rounds: how many. optimistic: else plain mirror descent.
        epochs, batch: of every fit, in pairs, see :func:`rewardkit.training.fit.fit`. seed: of their order.

    Yields:
        the round, with its pairs and the mean metrics of the base iterate's fit; ``learner`` then holds the policy of
        the next one.

    >>> import torch
    >>> from rewardkit.policies.table import TablePolicy
    >>> def duel(policy, round):
    ...     pairs = policy.sample(["x"] * 64, 2, seed=round)
    ...     best = [min(a.output, b.output) for a, b in zip(pairs.samples[0::2], pairs.samples[1::2])]
    ...     rank = [int(s.output != best[i // 2]) for i, s in enumerate(pairs.samples)]
    ...     return pairs.with_tensors(rank=torch.tensor(rank))
    >>> learner = Learner(TablePolicy(["x"], ["a", "b"]), lr=0.1)
    >>> played = [found.round for found in self_play(learner, duel, rate=1.0, rounds=3, epochs=3, batch=64)]
    >>> bool(learner.model.enumerate("x")[1][0] > 0.6)
    True
    """
    objective = partial(difference_regression, target=rate / 2)
    base, first = learner.fork(), seed * 1_000_003
    options: dict[str, Any] = {"epochs": epochs, "batch": batch}
    for found in all_rounds(
        base, lambda _, number: duel(learner.model, number), objective, reference="last", rounds=rounds, seed=first,
        **options,
    ):  # fmt: skip
        learner.load(base, optimizer="reset")
        if optimistic:
            pairs = learner.attach(found.rollout, base.model)
            for _ in fit(learner, pairs, objective, seed=first + found.round, **options):
                pass
        yield found
