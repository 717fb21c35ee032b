"""One loss on one stream: a step is a sum of terms, each with its own normaliser."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from rewardkit.needs import Column, call, name_of, needs, parameters
from rewardkit.objectives.base import Loss, Reduce, Spec, element_weights, pairs_of, spec
from rewardkit.protocols import Against, Want
from rewardkit.registry import entry
from rewardkit.types import Rollout

LIVE = frozenset({"logps", "entropy", "values", "scores"})
"""Names that the model computes with gradients. A stored tensor of such a name is never read in their place."""

ATTACH = {
    "ref_logps": "training.attach_reference(rollout, policy)",
    "old_logps": "policy.sample, or training.attach_reference(rollout, policy, name='old_logps')",
    "old_values": "loops.online with a critic, or rollout.with_tensors(old_values=...)",
    "advantages": "credit.base.apply(rule, rollout, scores)",
    "returns": "credit.base.apply(rule, rollout, scores) with a rule that makes returns, such as gae",
    "rank": "data.rows, or rollout.with_tensors(rank=...)",
    "label": "data.rows, or rollout.with_tensors(label=...)",
}
"""Which call attaches a tensor that no model computes."""


@entry("training:term", aliases=("Term",), tags=("learner",))
@dataclass(frozen=True, eq=False)
class Term:
    """One loss on one stream of data.

    Args:
        data: the rows; on several ranks, this rank's share of them.
        objective: a function declared with :func:`rewardkit.objectives.base.objective`, or a partial of one.
        view: whose weights compute the live tensors: ``live``, or any view of the model.
        coef: what the loss is multiplied by in the sum.
        reduce: how positions are averaged where the loss is per token, see
            :func:`rewardkit.objectives.base.element_weights`.
        length: the constant of ``reduce="constant"``, in positions.
        want: functions of the model's head, see :meth:`rewardkit.protocols.Model.evaluate`, whose results the
            objective reads by their ``__name__``.

    >>> from rewardkit.objectives.base import Loss, objective
    >>> from rewardkit.policies.table import TablePolicy
    >>> from rewardkit.types import Sample
    >>> @objective(per="token")
    ... def likelihood(logps):
    ...     return Loss(-logps)
    >>> Term(TablePolicy(["x"], ["a", "b"]).encode([Sample("x", "a")]), likelihood).name
    'likelihood'
    """

    data: Rollout
    objective: Callable[..., Loss]
    view: str = "live"
    coef: float = 1.0
    reduce: Reduce = "tokens"
    length: int | None = None
    want: tuple[Callable[..., Tensor] | Against, ...] = ()

    def __post_init__(self) -> None:
        for name, column in self.columns.items():
            if self.spec.per == "pair" and column.of == "row":
                raise ValueError(
                    f"term {self.name!r}: {name} has one entry a pair, and the column {column.name!r} one a row: say "
                    f"which, Column({column.name!r}, of='better') or of='difference'"
                )
        live = LIVE | {f.__name__ for f in self.want}
        missing = sorted(self.required() - live - {"pairs"} - self.data.names() - set(self.data.segments))
        if "pairs" in self.wanted and "rank" not in self.data:
            missing.append("rank")
        if missing:
            hints = "; ".join(f"{m!r} is attached by {ATTACH.get(m, 'rollout.with_tensors(...)')}" for m in missing)
            raise KeyError(
                f"term {self.name!r}: its objective needs {missing}, which the rollout has not ({hints}); "
                f"the rollout has {sorted(self.data.names())}"
            )

    @property
    def name(self) -> str:
        """The objective's name."""
        return name_of(self.objective)

    @cached_property
    def spec(self) -> Spec:
        """The objective's declaration."""
        return spec(self.objective)

    @cached_property
    def wanted(self) -> set[str]:
        """Every name that the objective can take."""
        return set(needs(self.objective)) | ({"pairs"} if self.spec.per == "pair" else set())

    @cached_property
    def reads(self) -> set[str]:
        """Every name that it may read of the rollout."""
        return self.wanted | {c.name for c in self.columns.values()} | {"rank"}

    def required(self) -> set[str]:
        """The names without which it cannot be called, columns included."""
        found = {c.name for c in self.columns.values()}
        for p in parameters(self.objective):
            if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD and p.default is inspect.Parameter.empty:
                found.add(p.name)
        return found

    @cached_property
    def columns(self) -> dict[str, Column]:
        """Hyper-parameters that are read from the rollout."""
        return {p.name: p.default for p in parameters(self.objective) if isinstance(p.default, Column)}

    @cached_property
    def live(self) -> list[Want]:
        """What the model must compute."""
        return [*sorted(self.wanted & LIVE), *self.want]

    def call(self, part: Rollout, live: Mapping[str, Tensor]) -> Loss:
        """The objective on ``part``: stored tensors, segments and derived names, and the live ones before all others.

        What is stored outside the mask and not finite is read as 0.
        """
        names: dict[str, Any] = {n: part[n] for n in part.names() & self.reads}
        if bool((part.mask == 0).any()):
            names = {n: _finite(x, part.mask) for n, x in names.items()}
        names |= part.segments
        if "pairs" in self.wanted:
            names["pairs"] = pairs_of(part.group, part["rank"])
        computed = LIVE | {f.__name__ for f in self.want}
        return call(self.objective, {k: v for k, v in names.items() if k not in computed} | dict(live))

    def weights(self, part: Rollout) -> Tensor:
        """The weight of each element of the loss on ``part``."""
        own, rank = self.spec, part.tensors.get("rank")
        pairs = pairs_of(part.group, part["rank"]) if own.per == "pair" else None
        return element_weights(part.mask, own.per, self.reduce, pairs=pairs, group=part.group, rank=rank, ties=own.ties)


def _finite(x: Tensor, mask: Tensor) -> Tensor:
    if not x.is_floating_point() or x.shape != mask.shape:
        return x
    return torch.where((mask == 0) & ~torch.isfinite(x), torch.zeros_like(x), x)


def unique_names(terms: Iterable[Term]) -> list[str]:
    """A name for each term: its objective's, numbered from the second on."""
    names: list[str] = []
    for term in terms:
        same = sum(n == term.name or n.startswith(f"{term.name}_") for n in names)
        names.append(f"{term.name}_{same + 1}" if same else term.name)
    return names
