"""What was generated: a batch of samples on a policy's time axis."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from rewardkit.types.sample import Cost, Sample


def _pad_to(x: Tensor, length: int, value: float) -> Tensor:
    """Right-pad axis 1 of ``x`` to ``length``."""
    if x.shape[1] == length:
        return x
    filler = x.new_full((x.shape[0], length - x.shape[1], *x.shape[2:]), value)
    return torch.cat([x, filler], dim=1)


def _take(values: Any, rows: Tensor) -> Any:
    if isinstance(values, Tensor):
        return values[rows.to(values.device)]
    return [values[i] for i in rows.tolist()]


@dataclass(eq=False)
class Rollout:
    """A batch of samples on a policy's time axis, with every tensor that objectives and credit rules read by name.

    Args:
        samples: ``B`` samples.
        mask: float ``[B, T]``, the weight with which a position is trained; 0 for padding, for what the environment
            wrote, for a shared prefix before a fork.
        group: long ``[B]``, rows that answer the same prompt share a number. Default: every row its own.
        family: long ``[B]``, rows of the same question under paraphrases, roles or duels. Default: ``group``.
        segments: name -> long ``[B, T]``: number of the turn, step, sentence ... at a position; -1 where the
            environment wrote it or nothing stands there.
        parent, start: long ``[B]``: a fork shares row ``parent`` before position ``start`` (-1: not a fork).
        tensors: name -> tensor with leading axis ``B``: ``logps``, ``old_logps``, ``ref_logps``, ``values``,
            ``advantages``, ``rank``, ... Tensors of two axes whose second is ``T`` are padded along with the mask.
        inputs: what the policy that made it needs to teacher-force its rows (token ids, latents, observations), as
            tensors or lists of length ``B``. Nobody else reads it.
        how: how it was sampled. Evaluation replays it (temperature, schedule, draws), all but ``how["drawn"]``: seeds,
            limits and the like, which are there for people.
        versions: name of a view -> version of the weights that produced its tensors.
        cost: what producing it took.
    """

    samples: list[Sample]
    mask: Tensor
    group: Tensor = None  # type: ignore[assignment]
    family: Tensor = None  # type: ignore[assignment]
    segments: dict[str, Tensor] = field(default_factory=dict)
    parent: Tensor | None = None
    start: Tensor | None = None
    tensors: dict[str, Tensor] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    how: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)

    def __post_init__(self) -> None:
        rows = len(self.samples)
        if self.mask.ndim != 2 or self.mask.shape[0] != rows:
            raise ValueError(f"Rollout.mask must be [B={rows}, T], not {tuple(self.mask.shape)}")
        if not self.mask.is_floating_point():
            self.mask = self.mask.float()
        if bool((self.mask < 0).any()) or not bool(torch.isfinite(self.mask).all()):
            raise ValueError("Rollout.mask holds weights: finite and not negative")
        if self.group is None:
            self.group = torch.arange(rows, device=self.mask.device)
        if self.family is None:
            self.family = self.group
        for name in ("group", "family", "parent", "start"):
            value = getattr(self, name)
            if value is not None and (tuple(value.shape) != (rows,) or value.is_floating_point()):
                raise ValueError(f"Rollout.{name} must be integer [B={rows}], not {value.dtype} {tuple(value.shape)}")
        if (self.parent is None) != (self.start is None):
            raise ValueError("Rollout.parent and Rollout.start come together: a fork has both")
        for name, value in self.segments.items():
            if value.shape != self.mask.shape or value.is_floating_point():
                raise ValueError(
                    f"Rollout.segments[{name!r}] must be integer {tuple(self.mask.shape)}, "
                    f"not {value.dtype} {tuple(value.shape)}"
                )
        for name, value in self.tensors.items():
            self._check_tensor(name, value)
        for name, value in self.inputs.items():
            if len(value) != rows:
                raise ValueError(f"Rollout.inputs[{name!r}] has {len(value)} rows, samples has {rows}")

    def _check_tensor(self, name: str, value: Tensor) -> None:
        if value.ndim == 0 or value.shape[0] != len(self.samples):
            raise ValueError(
                f"Rollout.tensors[{name!r}] must lead with B={len(self.samples)}, not {tuple(value.shape)}"
            )

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, name: str) -> Tensor:
        """The tensor ``name`` as objectives see it; ``mask``, ``group`` and ``family`` are names too."""
        if name in ("mask", "group", "family", "parent", "start"):
            value = getattr(self, name)
            if value is not None:
                return value
        if name in self.tensors:
            return self.tensors[name]
        raise KeyError(f"this rollout has no tensor {name!r}; it has {sorted(self.names())}")

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def names(self) -> set[str]:
        """Every name that ``rollout[name]`` answers to."""
        fixed = {"mask", "group", "family"} | ({"parent", "start"} if self.parent is not None else set())
        return fixed | set(self.tensors)

    def with_tensors(self, **tensors: Tensor) -> Rollout:
        """A rollout that shares everything with this one and has ``tensors`` added or replaced.

        Versions speak of tensors that were computed: those of replaced tensors are forgotten.
        """
        versions = {k: v for k, v in self.versions.items() if k not in tensors}
        return replace(self, tensors={**self.tensors, **tensors}, versions=versions)

    def select(self, rows: Tensor | Sequence[int]) -> Rollout:
        """The rollout of these rows, in this order; groups keep their numbers. Its cost is 0: what producing the batch
        took stays with the batch.

        Args:
            rows: their numbers, or a bool for each row.

        Raises:
            ValueError: if a fork is selected without its parent, or bools are not one a row.
        """
        index = torch.as_tensor(rows)
        if index.dtype == torch.bool:
            if index.shape != (len(self),):
                raise ValueError(f"Rollout.select by bools needs [B={len(self)}], not {tuple(index.shape)}")
            index = index.nonzero()[:, 0]
        index = index.long()
        parent, start = self.parent, self.start
        if parent is not None and start is not None:
            parent, start = parent[index], start[index]
            place = {int(old): new for new, old in enumerate(index.tolist())}
            missing = [int(p) for p in parent.tolist() if p >= 0 and int(p) not in place]
            if missing:
                raise ValueError(f"Rollout.select drops the parents {missing} of rows it keeps")
            parent = torch.tensor([place[int(p)] if p >= 0 else -1 for p in parent.tolist()], device=parent.device)
        # What was checked of the whole is not checked again: on a device that would be waited for.
        part = copy.copy(self)
        part.samples, part.cost = [self.samples[i] for i in index.tolist()], Cost()
        part.mask, part.group, part.family = (_take(x, index) for x in (self.mask, self.group, self.family))
        part.parent, part.start = parent, start
        part.segments = {k: _take(v, index) for k, v in self.segments.items()}
        part.tensors = {k: _take(v, index) for k, v in self.tensors.items()}
        part.inputs = {k: _take(v, index) for k, v in self.inputs.items()}
        return part

    def split(self, size: int, order: Tensor | None = None) -> Iterator[Rollout]:
        """Consecutive parts of at most ``size`` rows that never divide a group; a larger group stays whole.

        Rows of a group need not stand together: they are gathered, in order of the group's first row.

        Args:
            order: long ``[B]``, the rows as they are walked; default as they stand.
        """
        if size < 1:
            raise ValueError(f"Rollout.split needs a size of at least 1, not {size}")
        plain = torch.arange(len(self))
        rows, sizes = self._walk(size, plain if order is None else order.cpu())
        if self.parent is not None:
            yield from (self.select(part) for part in rows.split(sizes))
            return
        # Put in order once, then cut: with small models, taking every part's rows by number takes as long as its step.
        ordered = self if torch.equal(rows, plain) else self.select(rows)
        yield from (ordered._cut(a, b) for a, b in pairwise(accumulate(sizes, initial=0)))

    def _walk(self, size: int, order: Tensor) -> tuple[Tensor, list[int]]:
        """The rows part by part, and how many each part has; see :meth:`split`."""
        if len(self.group.unique()) == len(self):
            return order, [len(part) for part in order.split(size)]
        numbers = self.group.tolist()
        members: dict[int, list[int]] = {}
        for row in order.tolist():
            members.setdefault(numbers[row], []).append(row)
        sizes: list[int] = []
        for rows in members.values():
            if sizes and sizes[-1] + len(rows) <= size:
                sizes[-1] += len(rows)
            else:
                sizes.append(len(rows))
        return torch.tensor([row for rows in members.values() for row in rows]), sizes

    def _cut(self, first: int, last: int) -> Rollout:
        """Rows ``first`` to ``last``, as views; what was checked of the whole is not checked again."""
        part, rows = copy.copy(self), slice(first, last)
        part.samples, part.mask = self.samples[rows], self.mask[rows]
        part.group, part.family = self.group[rows], self.family[rows]
        part.segments = {k: v[rows] for k, v in self.segments.items()}
        part.tensors = {k: v[rows] for k, v in self.tensors.items()}
        part.inputs = {k: v[rows] for k, v in self.inputs.items()}
        part.cost = Cost()
        return part

    def steps(self) -> Rollout:
        """Every trained position as a row of its own, ``[N, 1]``, in a group of its own: for policies without memory.

        What leads with ``[B, T]`` is taken apart, inputs too; what leads with ``[B]`` alone is repeated.

        Raises:
            ValueError: for inputs that are lists (ragged rows depend on their past), or forks.
        """
        listed = [k for k, v in self.inputs.items() if not isinstance(v, Tensor)]
        if listed or self.parent is not None:
            raise ValueError(
                f"Rollout.steps: rows with {listed or 'parents'} cannot be taken apart: a step needs its past"
            )
        row_N, place_N = (self.mask > 0).nonzero(as_tuple=True)
        shape = self.mask.shape

        def taken(x: Tensor) -> Tensor:
            return x[row_N, place_N][:, None] if x.shape[:2] == shape else x[row_N]

        return replace(
            self,
            samples=[self.samples[i] for i in row_N.tolist()],
            mask=taken(self.mask),
            group=torch.arange(len(row_N), device=self.mask.device),
            family=self.family[row_N],
            segments={k: taken(v) for k, v in self.segments.items()},
            tensors={k: taken(v) for k, v in self.tensors.items()},
            inputs={k: taken(v) for k, v in self.inputs.items()},
        )

    def under(self, prompts: Sequence[Any]) -> Rollout:
        """The same outputs in another context; every tensor and input that depended on the old one is dropped.

        The result has no ``inputs``: hand its ``samples`` to ``policy.encode`` to teacher-force it. ``source`` keeps
        the user's own words.
        """
        if len(prompts) != len(self):
            raise ValueError(f"Rollout.under needs {len(self)} prompts, not {len(prompts)}")
        samples = [replace(s, prompt=p, source=s.asked) for s, p in zip(self.samples, prompts, strict=True)]
        return Rollout(
            samples, self.mask, self.group, self.family, dict(self.segments), how=dict(self.how), cost=self.cost
        )

    def to(self, device: torch.device | str) -> Rollout:
        """The rollout with every tensor on ``device``."""

        def move(value: Any) -> Any:
            return value.to(device) if isinstance(value, Tensor) else value

        return replace(
            self,
            mask=move(self.mask),
            group=move(self.group),
            family=move(self.family),
            parent=move(self.parent),
            start=move(self.start),
            segments={k: move(v) for k, v in self.segments.items()},
            tensors={k: move(v) for k, v in self.tensors.items()},
            inputs={k: move(v) for k, v in self.inputs.items()},
        )

    @staticmethod
    def cat(rollouts: Sequence[Rollout], *, regroup: bool = False) -> Rollout:
        """One rollout of all rows, padded on the right to the longest ``T``.

        Args:
            rollouts: at least one; all must carry the same tensors, segments and inputs, sampled in the same way.
            regroup: number groups and families afresh, so that equal numbers in different rollouts stay apart.

        Raises:
            ValueError: naming what differs. ``how["drawn"]`` may; versions that differ are forgotten.
        """
        if not rollouts:
            raise ValueError("Rollout.cat needs at least one rollout")
        for name in ("tensors", "segments", "inputs"):
            keys = [set(getattr(r, name)) for r in rollouts]
            if any(k != keys[0] for k in keys):
                odd = set.union(*keys) - set.intersection(*keys)
                raise ValueError(f"Rollout.cat: {name} {sorted(odd)} are not in every rollout")
        hows = [{k: v for k, v in r.how.items() if k != "drawn"} for r in rollouts]
        if any(h != hows[0] for h in hows):
            odd = {k for h in hows for k in h if any(o.get(k) != h[k] for o in hows)}
            raise ValueError(
                f"Rollout.cat: how the rollouts were sampled differs in {sorted(odd)}; evaluation replays it"
            )
        length = max(r.mask.shape[1] for r in rollouts)
        offsets, total = [], 0
        for r in rollouts:
            offsets.append(total)
            total += len(r)

        def joined(pick: Any, value: float) -> Tensor:
            parts = []
            for r in rollouts:
                x = pick(r)
                on_time_axis = x.ndim >= 2 and x.shape[1] == r.mask.shape[1]
                parts.append(_pad_to(x, length, value) if on_time_axis else x)
            return torch.cat(parts)

        def numbered(name: str) -> Tensor:
            parts, base = [], 0
            for r in rollouts:
                values = getattr(r, name)
                if regroup and len(r):
                    _, values = torch.unique(values, return_inverse=True)
                    values = values + base
                    base = int(values.max()) + 1
                parts.append(values)
            return torch.cat(parts)

        first = rollouts[0]
        forks = [r.parent is not None for r in rollouts]
        parent = start = None
        if any(forks):
            parent = torch.cat(
                [
                    torch.full((len(r),), -1)
                    if r.parent is None
                    else torch.where(r.parent >= 0, r.parent + o, r.parent)
                    for r, o in zip(rollouts, offsets, strict=True)
                ]
            )
            start = torch.cat([torch.full((len(r),), -1) if r.start is None else r.start for r in rollouts])
        return Rollout(
            samples=[s for r in rollouts for s in r.samples],
            mask=joined(lambda r: r.mask, 0.0),
            group=numbered("group"),
            family=numbered("family"),
            segments={k: joined(lambda r, k=k: r.segments[k], -1) for k in first.segments},
            parent=parent,
            start=start,
            tensors={k: joined(lambda r, k=k: r.tensors[k], 0.0) for k in first.tensors},
            inputs={
                k: torch.cat([r.inputs[k] for r in rollouts])
                if isinstance(first.inputs[k], Tensor)
                else [x for r in rollouts for x in r.inputs[k]]
                for k in first.inputs
            },
            how=dict(first.how),
            versions={k: v for k, v in first.versions.items() if all(r.versions.get(k) == v for r in rollouts)},
            cost=sum((r.cost for r in rollouts), Cost()),
        )
