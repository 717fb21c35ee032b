"""The nouns: what was said, what was generated, how it was scored, what was judged, what was measured.

Shapes: ``B`` rows of a batch, ``T`` positions on the policy's own time axis (tokens, sampler steps, environment
actions), ``S`` segments of one kind in a row. Attributes and the names that objectives and credit rules ask for carry
no shape suffix; local variables in mathematics do (``logps_BT``).

Everything is validated where it is built: an inconsistent shape is a :class:`ValueError` that names the field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

Ended = Literal["done", "cut", "failed"]

OK, ERROR, MISSING = 0, 1, 2
"""Row status of :class:`Scores`: scored; the grader failed; not labelled yet."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt with one output, which may still be partial.

    Args:
        prompt: what the policy saw: text, chat messages (``[{"role", "content"}, ...]``), a tensor, a start state.
        output: what it made of it: text, messages, tensor, trajectory. ``None`` where nothing was generated yet.
        source: the user's own words where ``prompt`` rewrites them. Rewards and judges read :attr:`asked`.
        hidden: gold answers, tests, references, facts, user id. Rewards may look, policies never.
        ended: ``done`` by itself, ``cut`` off (ran out of room or of time), or ``failed``.
    """

    prompt: Any
    output: Any = None
    source: Any = None
    hidden: Mapping[str, Any] = field(default_factory=dict)
    ended: Ended = "done"

    def __post_init__(self) -> None:
        if self.ended not in ("done", "cut", "failed"):
            raise ValueError(f"Sample.ended must be 'done', 'cut' or 'failed', not {self.ended!r}")
        if not isinstance(self.hidden, Mapping):
            raise ValueError(f"Sample.hidden must be a mapping, not {type(self.hidden).__name__}")

    @property
    def asked(self) -> Any:
        """The user's own words: ``source`` where there is one, else ``prompt``."""
        return self.prompt if self.source is None else self.source


@dataclass(frozen=True, slots=True)
class Cost:
    """What something took; costs add. Comparisons between methods are made at equal cost."""

    calls: int = 0
    tokens: int = 0
    gradients: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.calls + other.calls,
            self.tokens + other.tokens,
            self.gradients + other.gradients,
            self.seconds + other.seconds,
        )


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
        how: how it was sampled (temperature, schedule, draws); evaluation replays it.
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
        """A rollout that shares everything with this one and has ``tensors`` added or replaced."""
        return replace(self, tensors={**self.tensors, **tensors})

    def select(self, rows: Tensor | Sequence[int]) -> Rollout:
        """The rollout of these rows, in this order; groups keep their numbers.

        Raises:
            ValueError: if a fork is selected without its parent.
        """
        index = torch.as_tensor(rows, dtype=torch.long)
        parent, start = self.parent, self.start
        if parent is not None and start is not None:
            parent, start = parent[index], start[index]
            place = {int(old): new for new, old in enumerate(index.tolist())}
            missing = [int(p) for p in parent.tolist() if p >= 0 and int(p) not in place]
            if missing:
                raise ValueError(f"Rollout.select drops the parents {missing} of rows it keeps")
            parent = torch.tensor([place[int(p)] if p >= 0 else -1 for p in parent.tolist()], device=parent.device)
        return replace(
            self,
            samples=[self.samples[i] for i in index.tolist()],
            mask=_take(self.mask, index),
            group=_take(self.group, index),
            family=_take(self.family, index),
            segments={k: _take(v, index) for k, v in self.segments.items()},
            parent=parent,
            start=start,
            tensors={k: _take(v, index) for k, v in self.tensors.items()},
            inputs={k: _take(v, index) for k, v in self.inputs.items()},
        )

    def split(self, size: int) -> Iterator[Rollout]:
        """Consecutive parts of at most ``size`` rows that never divide a group; a larger group stays whole.

        Rows of a group need not stand together: they are gathered, in order of the group's first row.
        """
        if size < 1:
            raise ValueError(f"Rollout.split needs a size of at least 1, not {size}")
        members: dict[int, list[int]] = {}
        for row, group in enumerate(self.group.tolist()):
            members.setdefault(group, []).append(row)
        part: list[int] = []
        for rows in members.values():
            if part and len(part) + len(rows) > size:
                yield self.select(part)
                part = []
            part = part + rows
        if part:
            yield self.select(part)

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
            rollouts: at least one; all must carry the same tensors, segments and inputs.
            regroup: number groups and families afresh, so that equal numbers in different rollouts stay apart.
        """
        if not rollouts:
            raise ValueError("Rollout.cat needs at least one rollout")
        for name in ("tensors", "segments", "inputs"):
            keys = [set(getattr(r, name)) for r in rollouts]
            if any(k != keys[0] for k in keys):
                odd = set.union(*keys) - set.intersection(*keys)
                raise ValueError(f"Rollout.cat: {name} {sorted(odd)} are not in every rollout")
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
            versions=dict(first.versions),
            cost=sum((r.cost for r in rollouts), Cost()),
        )


DENSE_AXES = ("token", "step", "extent")


@dataclass(eq=False)
class Scores:
    """What a reward says of the rows of a rollout. A grader's failure is a status, never a number.

    Args:
        outcome: float ``[B]``, one score a row; ``None`` for a purely dense reward. Rows that are not OK hold 0
            and must not be read.
        dense: scores along an axis: ``token`` ``[B, T]``, ``step`` ``[B, S]`` (``S`` numbers the segments
            ``rollout.segments["step"]``), ``extent`` (the output's own axes: pixels, frames).
        parts, weights: for a composed reward, every component with its weight, each at its own resolution.
        std: float ``[B]``, the reward's own uncertainty in the units of ``outcome``.
        why: a rationale or error message a row.
        made_by: the judge's own rollout, so that judging can be trained.
        status: long ``[B]`` of OK, ERROR, MISSING. Default: all OK.
        cost: what scoring took.
        before: what a step that is not a weighted sum (a map, a gate, an ensemble) was computed from, by name: for
            people to see, never for credit.
    """

    outcome: Tensor | None = None
    dense: dict[str, Tensor] = field(default_factory=dict)
    parts: dict[str, Scores] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    std: Tensor | None = None
    why: list[str | None] | None = None
    made_by: Rollout | None = None
    status: Tensor = None  # type: ignore[assignment]
    cost: Cost = field(default_factory=Cost)
    before: dict[str, Scores] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = [self.outcome, *self.dense.values(), self.status, *(p.status for p in self.parts.values())]
        lengths = {len(x) for x in known if x is not None}
        if not lengths:
            raise ValueError("Scores needs an outcome, a dense score or parts")
        if len(lengths) > 1:
            raise ValueError(
                f"Scores: outcome, dense, parts and status disagree on the number of rows: {sorted(lengths)}"
            )
        rows = lengths.pop()
        if self.outcome is not None:
            if self.outcome.ndim != 1:
                raise ValueError(f"Scores.outcome must be [B], not {tuple(self.outcome.shape)}")
            if not self.outcome.is_floating_point():
                self.outcome = self.outcome.float()
        unknown = set(self.dense) - set(DENSE_AXES)
        if unknown:
            raise ValueError(f"Scores.dense knows the axes {DENSE_AXES}, not {sorted(unknown)}")
        if set(self.parts) != set(self.weights):
            raise ValueError(
                f"Scores.parts {sorted(self.parts)} and Scores.weights {sorted(self.weights)} must name the same"
            )
        if self.status is None:
            device = next(x.device for x in known if x is not None)
            self.status = torch.zeros(rows, dtype=torch.long, device=device)
        if self.status.shape != (rows,):
            raise ValueError(f"Scores.status must be [B={rows}], not {tuple(self.status.shape)}")
        self._check_numbers()

    def _check_numbers(self) -> None:
        """A number that is not finite under status OK would poison every baseline: refuse it here, by row."""
        named = [("outcome", self.outcome), *((f"dense[{k!r}]", v) for k, v in self.dense.items())]
        for name, value in named:
            if value is None:
                continue
            finite = torch.isfinite(value.detach()).unflatten(0, (len(value), 1)).flatten(1).all(1)
            bad = ~finite & self.ok.to(value.device)
            if bool(bad.any()):
                row = int(bad.nonzero()[0])
                raise ValueError(
                    f"Scores.{name} is not finite in row {row} although its status is OK; mark the row ERROR"
                )

    def __len__(self) -> int:
        return len(self.status)

    @property
    def ok(self) -> Tensor:
        """bool ``[B]``: rows that were scored."""
        return self.status == OK

    @staticmethod
    def combine(parts: Mapping[str, Scores], weights: Mapping[str, float]) -> Scores:
        """The weighted sum that keeps its parts; ``outcome`` sums those that have one, dense scores stay in the parts.

        A row is OK only if every part is: an unscored component leaves the whole sample unscored.
        """
        if not parts:
            raise ValueError("Scores.combine needs at least one part")
        status = torch.stack([p.status for p in parts.values()]).amax(0)
        outcomes = [weights[k] * p.outcome for k, p in parts.items() if p.outcome is not None]
        outcome = torch.stack(outcomes).sum(0) if outcomes else None
        if outcome is not None:
            outcome = torch.where(status == OK, outcome, torch.zeros_like(outcome))
        whys = [p.why for p in parts.values() if p.why is not None]
        why = [" | ".join(w for w in row if w) or None for row in zip(*whys, strict=True)] if whys else None
        return Scores(
            outcome,
            parts=dict(parts),
            weights={k: float(w) for k, w in weights.items()},
            why=why,
            status=status,
            cost=sum((p.cost for p in parts.values()), Cost()),
        )


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a person, a model or a simulator said of one or several samples.

    Exactly one of ``rank``, ``p`` and ``rating`` is given, or none where the judgement is only spans or a note.

    Args:
        items: the samples judged, usually of one prompt: two for a comparison, k for a ranking, one for a rating.
        rank: a place for each item, 0 the best; equal places are a tie.
        p: the probability of each item to be the best (a soft comparison, votes); sums to 1.
        rating: a grade for each item; a thumb is 1.0 or 0.0.
        strength: how much better the best is, in the annotator's own units.
        aspect: what was asked for (``helpful``, ``harmless`` ...); annotator: who; at: when (unix seconds).
        spans: ``(item, start, end, label)`` in characters of the item's output.
        note: a critique in words.
        weight: how much the judgement counts.
    """

    items: tuple[Sample, ...]
    rank: tuple[int, ...] | None = None
    p: tuple[float, ...] | None = None
    rating: tuple[float, ...] | None = None
    strength: float | None = None
    aspect: str | None = None
    annotator: str | None = None
    at: float | None = None
    spans: tuple[tuple[int, int, int, str], ...] = ()
    note: str | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.items:
            raise ValueError("Judgement.items is empty")
        given = [n for n in ("rank", "p", "rating") if getattr(self, n) is not None]
        if len(given) > 1:
            raise ValueError(f"a Judgement has one of rank, p and rating, not {given}")
        for name in given:
            if len(getattr(self, name)) != len(self.items):
                raise ValueError(f"Judgement.{name} has {len(getattr(self, name))} entries for {len(self.items)} items")
        if self.rank is not None and min(self.rank) != 0:
            raise ValueError(f"Judgement.rank starts at 0 for the best, not {min(self.rank)}")
        if self.p is not None and (min(self.p) < 0 or abs(sum(self.p) - 1) > 1e-6):
            raise ValueError(f"Judgement.p must be a distribution over the items, not {self.p}")
        if not given and not self.spans and self.note is None:
            raise ValueError("a Judgement says something: rank, p, rating, spans or a note")
        for item, begin, end, _ in self.spans:
            if not 0 <= item < len(self.items) or not 0 <= begin <= end:
                raise ValueError(f"Judgement.spans: ({item}, {begin}, {end}) is not a span of one of the items")
        if not self.weight >= 0:
            raise ValueError(f"Judgement.weight must not be negative, not {self.weight}")

    @property
    def tied(self) -> bool:
        """Whether all items were judged equal."""
        values = self.rank or self.p or self.rating
        return values is not None and len(self.items) > 1 and len(set(values)) == 1


@dataclass(frozen=True, slots=True)
class Measure:
    """What every evaluation returns.

    Args:
        value: the figure. n: how many cases it rests on. ci: 95% interval. invalid: cases that could not be
            measured, left out of ``value``. by: the same measure by category.
    """

    value: float
    n: int
    ci: tuple[float, float] | None = None
    invalid: int = 0
    by: Mapping[str, Measure] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.n < 0 or self.invalid < 0:
            raise ValueError(f"Measure.n and Measure.invalid count cases, not {self.n} and {self.invalid}")
        if self.ci is not None and self.ci[0] > self.ci[1]:
            raise ValueError(f"Measure.ci is (low, high), not {self.ci}")
