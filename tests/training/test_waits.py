"""A step waits for the device a fixed number of times, whatever is divided and logged.

There is no device here to wait for, so the rollout's tensors stand in for one: reading their values from Python is
counted, a copy to the host as one wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from rewardkit.objectives.base import Loss, objective
from rewardkit.objectives.policy import clipped
from rewardkit.objectives.preference import dpo
from rewardkit.policies.table import TablePolicy
from rewardkit.training import accumulate
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Rollout, Sample

WAITS = {
    "item",
    "tolist",
    "__bool__",
    "__float__",
    "__int__",
    "__index__",
    "nonzero",
    "unique",
    "equal",
    "masked_select",
}
seen: Counter[str] = Counter()


class Far(Tensor):
    """A tensor whose values are far away."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in WAITS or (name == "__getitem__" and _by_bools(args[1])):
            seen[name] += 1
        return super().__torch_function__(func, types, args, kwargs or {})


def _by_bools(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype == torch.bool


def far(rollout: Rollout) -> Rollout:
    move: Callable[[Tensor], Tensor] = lambda x: x.as_subclass(Far)
    found = Rollout(rollout.samples, rollout.mask, rollout.group, inputs=rollout.inputs, tensors=dict(rollout.tensors))
    found.mask, found.group, found.family = move(found.mask), move(found.group), move(found.family)
    found.tensors = {k: move(v) for k, v in found.tensors.items()}
    return found


def near(rollout: Rollout) -> Rollout:
    """What :func:`rewardkit.training.accumulate._seen` copies: once a step."""
    seen["copy"] += 1
    plain = {k: getattr(rollout, k).as_subclass(Tensor) for k in ("mask", "group", "family")}
    tensors = {k: v.as_subclass(Tensor) for k, v in rollout.tensors.items() if k == "rank"}
    return Rollout(rollout.samples, **plain, tensors=tensors).with_tensors(row=torch.arange(len(rollout)))


@objective(per="token")
def with_many_metrics(logps: Tensor, advantages: Tensor, *, count: int) -> Loss:
    return Loss(-logps * advantages, {f"metric_{i}": logps.detach() * i for i in range(count)})


@pytest.mark.parametrize("micro_batch", [None, 4, 2])
@pytest.mark.parametrize(
    "fn", [dpo, clipped, partial(with_many_metrics, count=2), partial(with_many_metrics, count=20)]
)
def test_waits_do_not_grow_with_micro_batches_or_metrics(
    fn: Any, micro_batch: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accumulate, "_seen", near)
    policy = TablePolicy(["x", "y"], ["a", "b"])
    data = policy.encode([Sample(p, o) for p in "xyxy" for o in "ab"])
    data.group = torch.arange(4).repeat_interleave(2)
    extra = {"ref_logps": torch.full((8, 1), -0.7), "advantages": torch.randn(8, 1), "old_logps": torch.zeros(8, 1)}
    data = data.with_tensors(rank=torch.tensor([0, 1] * 4), **extra)
    learner = Learner(policy, lr=0.1, micro_batch=micro_batch)
    term = Term(far(data), fn)
    seen.clear()
    learner.step(term)
    assert seen["copy"] == 1
    # The gradient's norm, which decides whether the update is made, is the module's own: it is not counted here.
    assert sum(seen.values()) <= 2, seen
