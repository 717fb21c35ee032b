"""How outputs were scored, part by part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rewardkit.types.rollout import Rollout
from rewardkit.types.sample import Cost

OK, ERROR, MISSING = 0, 1, 2
"""Row status of :class:`Scores`: scored; the grader failed; not labelled yet."""
DENSE_AXES = ("token", "step", "turn", "extent")


@dataclass(eq=False)
class Scores:
    """What a reward says of the rows of a rollout. A grader's failure is a status, never a number.

    Args:
        outcome: float ``[B]``, one score a row; ``None`` for a purely dense reward. Rows that are not OK hold 0
            and must not be read.
        dense: scores along an axis: ``token`` ``[B, T]``, ``step`` or ``turn`` ``[B, S]`` (``S`` numbers the segments
            ``rollout.segments`` of that name), ``extent`` (the output's own axes: pixels, frames).
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
        if self.outcome is not None and self.outcome.ndim != 1:
            raise ValueError(f"Scores.outcome must be [B], not {tuple(self.outcome.shape)}")
        for axis, dense in self.dense.items():
            if dense.ndim < 2:
                raise ValueError(
                    f"Scores.dense[{axis!r}] must be [B, ...] with two axes or more, not {tuple(dense.shape)}"
                )
        known = [self.outcome, *self.dense.values(), self.status, *(p.status for p in self.parts.values())]
        lengths = {len(x) for x in known if x is not None}
        if not lengths:
            raise ValueError("Scores needs an outcome, a dense score or parts")
        if len(lengths) > 1:
            raise ValueError(
                f"Scores: outcome, dense, parts and status disagree on the number of rows: {sorted(lengths)}"
            )
        rows = lengths.pop()
        if self.outcome is not None and not self.outcome.is_floating_point():
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
        if self.status.dtype == torch.bool or bool(((self.status < OK) | (self.status > MISSING)).any()):
            raise ValueError(f"Scores.status holds OK ({OK}), ERROR ({ERROR}) or MISSING ({MISSING}), as integers")
        if self.std is not None and self.std.shape != (rows,):
            raise ValueError(f"Scores.std must be [B={rows}], not {tuple(self.std.shape)}")
        if self.why is not None and len(self.why) != rows:
            raise ValueError(f"Scores.why has {len(self.why)} entries for {rows} rows")
        self._check_numbers()

    def _check_numbers(self) -> None:
        """A number that is not finite under status OK would poison every baseline: refuse it here, by row."""
        named = [("outcome", self.outcome), ("std", self.std), *((f"dense[{k!r}]", v) for k, v in self.dense.items())]
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

        A row is OK only if every part is: an unscored component leaves the whole sample unscored. Parts of weight 0 are
        for people to see: they decide nothing.
        """
        if not parts:
            raise ValueError("Scores.combine needs at least one part")
        counted = [p.status for k, p in parts.items() if weights[k] != 0] or [p.status for p in parts.values()]
        seen = torch.stack(counted)
        # A failure is never hidden behind a part that is merely not labelled.
        status = torch.where((seen == ERROR).any(0), torch.full_like(seen[0], ERROR), seen.amax(0))
        outcomes = [
            weights[k] * torch.where(p.ok, p.outcome, torch.zeros_like(p.outcome))
            for k, p in parts.items()
            if p.outcome is not None
        ]
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
