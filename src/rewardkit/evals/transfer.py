"""Do other reward models agree with the one that was optimised?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from rewardkit.protocols import Reward
from rewardkit.registry import entry
from rewardkit.types import Rollout, Scores


@dataclass(frozen=True)
class Transfer:
    """Gains in units of each judge's own spread on the start's outputs.

    Args:
        gain: optimised against -> judged by -> mean gain over the start. own: judged by the reward that was optimised.
        others: mean gain judged by all other rewards. gap: ``own - others``, what did not transfer.
    """

    gain: dict[str, dict[str, float]]
    own: dict[str, float]
    others: dict[str, float]

    @property
    def gap(self) -> dict[str, float]:
        """By optimised reward: what its own judge saw and the others did not."""
        return {k: self.own[k] - self.others[k] for k in self.own}


@entry(
    "evals:cross_rm_transfer",
    tags=("overoptimization",),
    source="Eisenstein et al. 2023, arXiv:2312.09244, section 4",
)
def cross_rm_transfer(rewards: Mapping[str, Reward], optimised: Mapping[str, Rollout], start: Rollout) -> Transfer:
    """Outputs optimised against each reward, judged by every reward.

    A reward's scale and zero are its own, so gains are over its mean on ``start``, divided by its standard deviation
    there.

    Args:
        rewards: by name, two at least. optimised: by the name of the reward that was optimised. start: outputs before.

    Raises:
        ValueError: for fewer than two rewards, an unknown name, or a judge that scores the start all equal.

    >>> from rewardkit.rewards.base import RewardBase
    >>> from rewardkit.types import Sample
    >>> class Count(RewardBase):
    ...     def __init__(self, letter):
    ...         self.name = letter
    ...     def __call__(self, rollout, ctx=None):
    ...         return Scores(torch.tensor([float(s.output.count(self.name)) for s in rollout.samples]))
    >>> def of(*texts):
    ...     return Rollout([Sample("x", t) for t in texts], torch.ones(len(texts), 1))
    >>> found = cross_rm_transfer({"a": Count("a"), "b": Count("b")}, {"a": of("aa", "aa")}, of("a", "b"))
    >>> round(found.gap["a"], 2)
    2.83
    """
    if len(rewards) < 2:
        raise ValueError("cross_rm_transfer needs at least two rewards")
    unknown = set(optimised) - set(rewards)
    if unknown:
        raise ValueError(f"outputs were optimised against {sorted(unknown)}; the rewards are {sorted(rewards)}")
    base = {}
    for name, judge in rewards.items():
        values = _scored(judge(start), name)
        spread = float(values.std())
        if not spread > 0:
            raise ValueError(f"reward {name!r} scores every output of the start the same")
        base[name] = float(values.mean()), spread
    gain: dict[str, dict[str, float]] = {}
    for name, rollout in optimised.items():
        gain[name] = {
            judge: (float(_scored(rewards[judge](rollout), judge).mean()) - mean) / spread
            for judge, (mean, spread) in base.items()
        }
    own = {k: v[k] for k, v in gain.items()}
    others = {k: sum(x for j, x in v.items() if j != k) / (len(v) - 1) for k, v in gain.items()}
    return Transfer(gain, own, others)


def _scored(scores: Scores, name: str) -> torch.Tensor:
    if scores.outcome is None or not bool(scores.ok.any()):
        raise ValueError(f"reward {name!r} gave no outcome")
    return scores.outcome[scores.ok].double()
