"""What every reward shares: operators, the state of its parts, and how a scored batch is summed up for a log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rewardkit.protocols import Reward
from rewardkit.types import ERROR, MISSING, Rollout, Scores

if TYPE_CHECKING:
    from rewardkit.rewards.ops import Mapped, Otherwise, Sum

SCOPES = ("sample", "group", "family", "batch")


def scope_of(reward: Reward) -> str:
    """The declared scope of a reward.

    Raises:
        ValueError: for a scope that is not one of ``SCOPES``.
    """
    scope = reward.scope
    if scope not in SCOPES:
        raise ValueError(f"reward {reward.name!r} has scope {scope!r}; it must be one of {SCOPES}")
    return scope


def widest(*rewards: Reward) -> str:
    """The scope of a composition: that of its widest part."""
    return max((scope_of(r) for r in rewards), key=SCOPES.index)


class RewardBase:
    """Operators for rewards: ``a + 0.2 * b``, ``a - b``, ``a >> torch.tanh``, ``a.otherwise(0.0)``, ``a.named("x")``.

    A subclass sets ``name``, and ``scope`` where it must see more than a row at once, and implements ``__call__``. One
    that holds other rewards lists them in :meth:`children`, and their state is its state. A reward that holds a policy
    sees its weights as they are at each call; hold ``policy.keep(view)`` to freeze them.
    """

    name: str = ""
    scope: str = "sample"
    differentiable: bool = False

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        raise NotImplementedError(f"{type(self).__name__} must implement __call__(rollout, ctx) -> Scores")

    def children(self) -> Mapping[str, Reward]:
        """The rewards that this one is made of, by name."""
        return {}

    @property
    def concurrent(self) -> bool:
        """Whether it mostly waits, as any of its parts does: such rewards of a sum run beside each other."""
        return any(getattr(child, "concurrent", False) for child in self.children().values())

    def update(self, rollout: Rollout, scores: Scores, **progress: Any) -> None:
        """Tell every part that has an ``update`` what became of a batch (schedules, memories, online fitting)."""
        for child in self.children().values():
            if hasattr(child, "update"):
                child.update(rollout, scores, **progress)

    def state_dict(self) -> dict[str, Any]:
        """The state of the parts that have one, by name."""
        return {k: c.state_dict() for k, c in self.children().items() if hasattr(c, "state_dict")}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave.

        Raises:
            ValueError: if the state is of a reward with other parts.
        """
        own = {k: c for k, c in self.children().items() if hasattr(c, "load_state_dict")}
        if set(state) != set(own):
            raise ValueError(f"reward {self.name!r} has the parts {sorted(own)}, the state has {sorted(state)}")
        for key, child in own.items():
            child.load_state_dict(state[key])

    def named(self, name: str) -> Named:
        """The same reward under another name; a sum that was named is kept whole inside a larger one."""
        return Named(self, name)

    def otherwise(self, value: float, *, of: str = "error") -> Otherwise:
        """Give rows without a score a number, explicitly.

        Args:
            value: the score that they get. of: ``error`` (the grader failed), ``missing`` (not labelled), or ``any``.
        """
        from rewardkit.rewards.ops import Otherwise

        return Otherwise(self, value, of=of)

    def __add__(self, other: Reward | float) -> Sum:
        from rewardkit.rewards.ops import add

        return add(self, other, 1.0)

    def __radd__(self, other: float) -> RewardBase:
        # sum([...]) starts from 0
        return self if isinstance(other, (int, float)) and other == 0 else self + other

    def __sub__(self, other: Reward | float) -> Sum:
        from rewardkit.rewards.ops import add

        return add(self, other, -1.0)

    def __rsub__(self, other: float) -> Sum:
        return -1.0 * self + other

    def __mul__(self, weight: float) -> Sum:
        from rewardkit.rewards.ops import scaled

        return scaled(self, weight)

    __rmul__ = __mul__

    def __neg__(self) -> Sum:
        return self * -1.0

    def __rshift__(self, fn: Callable[[Tensor], Tensor]) -> Mapped:
        from rewardkit.rewards.ops import Mapped

        return Mapped(self, fn)


class Named(RewardBase):
    """A reward under a name of the caller's; also gives the operators to anything that follows the protocol.

    Args:
        reward: any :class:`rewardkit.protocols.Reward`. name: default its own.
    """

    def __init__(self, reward: Reward, name: str | None = None) -> None:
        self.reward, self.name, self.scope = reward, name or reward.name, scope_of(reward)
        self.differentiable = getattr(reward, "differentiable", False)

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        return self.reward(rollout, ctx)

    def children(self) -> Mapping[str, Reward]:
        return {"reward": self.reward}


class Constant(RewardBase):
    """The same score for every row.

    Args:
        value: that score.
    """

    differentiable = True

    def __init__(self, value: float, name: str = "constant") -> None:
        self.value, self.name = float(value), name

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        return Scores(torch.full((len(rollout),), self.value, device=rollout.mask.device))


def errors(scores: Scores) -> dict[str, int]:
    """Messages of the rows whose grader failed, with how often each came, the commonest first."""
    found: dict[str, int] = {}
    for row in (scores.status == ERROR).nonzero()[:, 0].tolist():
        message = (scores.why[row] if scores.why is not None else None) or "no message"
        found[message] = found.get(message, 0) + 1
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def describe(scores: Scores, name: str = "reward") -> dict[str, float]:
    """What a log should say of a batch of scores.

    Returns:
        ``reward`` (mean of what is optimised, weights included) and ``reward/std`` over scored rows; ``reward/<part>``
        for the unweighted mean of every part, at any depth; ``reward/errors`` and ``reward/missing`` as counts.

    >>> parts = {"a": Scores(torch.tensor([1.0, 3.0])), "b": Scores(torch.tensor([1.0, 1.0]))}
    >>> found = describe(Scores.combine(parts, {"a": 1.0, "b": -0.5}))
    >>> found["reward"], found["reward/a"], found["reward/b"]
    (1.5, 2.0, 1.0)
    """
    found: dict[str, float] = {}
    if scores.outcome is not None and bool(scores.ok.any()):
        values = scores.outcome.detach()[scores.ok].double()
        found[name] = float(values.mean())
        found[f"{name}/std"] = float(values.std()) if len(values) > 1 else 0.0
    found[f"{name}/errors"] = float((scores.status == ERROR).sum())
    found[f"{name}/missing"] = float((scores.status == MISSING).sum())
    for key, part in {**scores.before, **scores.parts}.items():
        inner = describe(part, f"{name}/{key}")
        found.update({k: v for k, v in inner.items() if not (k.endswith(("/errors", "/missing")) and v == 0)})
    return found
