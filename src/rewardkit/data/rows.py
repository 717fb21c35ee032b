"""Judgements as rows: the samples one below the other, with the tensors by which objectives know what was said of them.

``rows -> policy.encode(rows.samples) -> attach(rollout, rows)`` is all between a file and a loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from rewardkit.types import Judgement, Rollout, Sample


@dataclass(frozen=True, eq=False)
class Rows:
    """Samples with what was judged of them.

    Args:
        samples: ``B`` samples. group: long ``[B]``, rows of one judgement share a number.
        tensors: by name, ``[B]`` each: ``rank`` and ``weight``, ``strength``, ``p``, ``rating``, ``label`` where they
            apply.
    """

    samples: list[Sample]
    group: Tensor
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.samples)


def attach(rollout: Rollout, rows: Rows) -> Rollout:
    """The rollout that ``policy.encode(rows.samples)`` gave, with the groups and tensors of ``rows``.

    Raises:
        ValueError: if the rollout has another number of rows.
    """
    if len(rollout) != len(rows):
        raise ValueError(f"attach: the rollout has {len(rollout)} rows, the judgements have {len(rows)}")
    device = rollout.mask.device
    group = rows.group.to(device)
    tensors = {**rollout.tensors, **{name: t.to(device) for name, t in rows.tensors.items()}}
    return replace(rollout, group=group, family=group, tensors=tensors)


def places(judgement: Judgement) -> tuple[int, ...]:
    """The place of each item, 0 the best: its rank, or its order by ``p`` or ``rating``, equal values sharing a place.

    Raises:
        ValueError: for a judgement that orders nothing.

    >>> places(Judgement((Sample("p", "a"), Sample("p", "b"), Sample("p", "c")), rating=(1.0, 5.0, 1.0)))
    (1, 0, 1)
    """
    if judgement.rank is not None:
        return judgement.rank
    values = judgement.p if judgement.rating is None else judgement.rating
    if values is None:
        raise ValueError("a judgement of spans or a note alone orders nothing: leave it out")
    order = sorted(set(values), reverse=True)
    return tuple(order.index(v) for v in values)


def comparison_rows(judgements: Iterable[Judgement]) -> Rows:
    """Rows of pairs and k-way judgements, in order: group ``0 .. n-1``, ``rank``, ``weight`` and what else was said.

    ``strength`` is there if any judgement has one, 0 where it has none; ``p`` if any has one, else the winner's 1
    (joint winners share it). Equal ranks are ties. chosen and rejected are treated alike.

    Raises:
        ValueError: for a judgement of one item, or one that orders nothing.

    >>> rows = comparison_rows([Judgement((Sample("2 + 2?", "4"), Sample("2 + 2?", "5")), rank=(0, 1))])
    >>> rows.group.tolist(), rows.tensors["rank"].tolist()
    ([0, 0], [0, 1])
    """
    judged = list(judgements)
    samples: list[Sample] = []
    group: list[int] = []
    rank: list[int] = []
    p: list[float] = []
    for number, judgement in enumerate(judged):
        if len(judgement.items) < 2:
            raise ValueError(f"judgement {number} is of one item: a comparison has two or more (see rated_rows)")
        samples += judgement.items
        group += [number] * len(judgement.items)
        at = places(judgement)
        rank += at
        p += judgement.p or [(r == 0) / at.count(0) for r in at]
    tensors = {"rank": torch.tensor(rank, dtype=torch.long), "weight": _each(judged, [j.weight for j in judged])}
    if any(j.strength is not None for j in judged):
        tensors["strength"] = _each(judged, [j.strength or 0.0 for j in judged])
    if any(j.p is not None for j in judged):
        tensors["p"] = torch.tensor(p)
    return Rows(samples, torch.tensor(group, dtype=torch.long), tensors)


def rated_rows(judgements: Iterable[Judgement]) -> Rows:
    """Rows of ratings, one a rated item, with ``rating`` and ``weight``; items of one judgement share a group.

    Raises:
        ValueError: for a judgement without rating.
    """
    judged = list(judgements)
    for number, judgement in enumerate(judged):
        if judgement.rating is None:
            raise ValueError(f"judgement {number} has no rating (see comparison_rows)")
    samples = [s for j in judged for s in j.items]
    ratings = torch.tensor([r for j in judged for r in j.rating or ()])
    group = torch.tensor([i for i, j in enumerate(judged) for _ in j.items], dtype=torch.long)
    return Rows(samples, group, {"rating": ratings, "weight": _each(judged, [j.weight for j in judged])})


def labelled_rows(judgements: Iterable[Judgement], *, mismatched: bool = True) -> Rows:
    """Rows of thumbs for KTO: ``label`` 1 (desirable) or 0, then the rows with label -1 that estimate its KL.

    Row ``i`` of these joins prompt ``i`` with the completion of the next row, cyclically, that has another prompt and
    another completion; where there is none the row is left out, so no row is ever joined with itself, and a batch of
    one has no such row. Any number of rows will do, odd or even. They belong to one batch: keep them together.

    Args:
        judgements: of one item each, with rating 1.0 or 0.0. mismatched: whether to add the rows with label -1.

    Raises:
        ValueError: for another kind of judgement.

    >>> up, down = (Judgement((Sample(p, o),), rating=(r,)) for p, o, r in [("1 + 1?", "2", 1.0), ("2 + 2?", "5", 0.0)])
    >>> rows = labelled_rows([up, down])
    >>> [(s.prompt, s.output) for s in rows.samples][2:], rows.tensors["label"].tolist()
    ([('1 + 1?', '5'), ('2 + 2?', '2')], [1, 0, -1, -1])
    """
    judged = list(judgements)
    for number, judgement in enumerate(judged):
        if judgement.rating not in ((1.0,), (0.0,)):
            raise ValueError(
                f"judgement {number} is no thumb: one item with rating 1.0 or 0.0 wanted, not {judgement.rating}"
            )
    samples = [j.items[0] for j in judged]
    label = [int(j.rating == (1.0,)) for j in judged]
    weight = [j.weight for j in judged]
    for row in range(len(judged) if mismatched else 0):
        other = _stranger(samples[: len(judged)], row)
        if other is not None:
            samples.append(replace(samples[row], output=other.output, ended=other.ended))
            label.append(-1)
            weight.append(1.0)
    tensors = {"label": torch.tensor(label, dtype=torch.long), "weight": torch.tensor(weight)}
    return Rows(samples, torch.arange(len(samples)), tensors)


def _stranger(samples: Sequence[Sample], row: int) -> Sample | None:
    """The next sample after ``row``, cyclically, that differs in prompt and output."""
    mine = samples[row]
    for step in range(1, len(samples)):
        other = samples[(row + step) % len(samples)]
        if other.prompt != mine.prompt and other.output != mine.output:
            return other
    return None


def _each(judged: Sequence[Judgement], values: Iterable[float]) -> Tensor:
    """One value a judgement, repeated for its items."""
    return torch.tensor([v for j, v in zip(judged, values, strict=True) for _ in j.items])
