"""Elastic reset: what the for-body of ``online`` does after each turn."""

from __future__ import annotations

from rewardkit.policies.weights import read
from rewardkit.registry import entry
from rewardkit.training.learner import Learner


@entry(
    "loops:elastic_reset",
    aliases=("ElasticReset",),
    tags=("on-policy", "weight-space"),
    source="Noukhovitch et al. 2023, arXiv:2312.07551, algorithm 1, and github.com/mnoukhov/elastic-reset",
)
class ElasticReset:
    """Every so often the policy takes the moving average of its weights, and the average the weights it began with.

    Args:
        learner: as it begins. every: turns between two resets. decay: of the average, each turn; 1 makes it a hard
            reset to the beginning, 0 makes it nothing at all.
        second: whether the average is reset as well. Without it the method is mere averaging, and drifts.

    The optimiser's moments are kept, as in the authors' code.

    >>> import torch
    >>> from rewardkit.policies.table import TablePolicy
    >>> policy = TablePolicy(["x"], ["a", "b"])
    >>> reset = ElasticReset(Learner(policy), every=2, decay=0.5)
    >>> for turn in (1, 2):
    ...     with torch.no_grad():
    ...         policy.logits[..., 1] += 1.0
    ...     reset.after(turn)
    >>> policy.logits[0, 0].tolist()  # the average of 0, 1 and 2 with weights 1/4, 1/4, 1/2
    [0.0, 1.25]
    """

    def __init__(self, learner: Learner, *, every: int, decay: float, second: bool = True) -> None:
        if every < 1 or not 0 <= decay <= 1:
            raise ValueError(f"elastic reset needs every >= 1 and a decay in [0, 1], not {every} and {decay}")
        self.learner, self.every, self.decay, self.second = learner, every, decay, second
        self.average = learner.fork()
        self.start = read(learner.model)

    def after(self, turn: int) -> None:
        """Move the average, and reset where it is time; ``turn`` counts from 1."""
        self.average.lerp(self.learner, 1 - self.decay)
        if turn % self.every == 0:
            self.learner.load(self.average, optimizer="keep")
            if self.second:
                self.average.load(self.start, optimizer="keep")
