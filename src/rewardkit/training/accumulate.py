"""Exact accumulation: the gradient of a sum of terms does not depend on how the rows were divided.

Denominators are known for the whole step before the first backward: they need masks, groups and ranks, never a model.
Objectives that couple the whole batch take two passes where its rows are divided: their live tensors without graph, the
gradient with respect to those small tensors, then a backward by micro-batch of the product of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rewardkit.measures.masked import masked
from rewardkit.objectives.base import Loss, normaliser, reduce_loss
from rewardkit.protocols import Model, Want
from rewardkit.training.modes import Precision, forward
from rewardkit.training.ranks import Ranks
from rewardkit.training.term import Term, unique_names
from rewardkit.types import Rollout, Sample


@dataclass
class Totals:
    """Running sums on the device, one vector a term; nothing waits for them until :meth:`means`.

    Args:
        coefs: of each term's loss. masses: the sum of each term's weights over all ranks, what its metrics are divided
            by.
    """

    coefs: dict[str, float]
    masses: dict[str, float] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    sums: dict[str, Tensor] = field(default_factory=dict)

    def add(self, term: str, names: Sequence[str], totals: Tensor) -> None:
        """Add ``totals [K]`` to those of a term: its loss and its metrics."""
        self.names[term] = list(names)
        self.sums[term] = self.sums[term] + totals if term in self.sums else totals

    def means(self, ranks: Ranks) -> dict[str, float]:
        """``loss``, ``term/loss`` and each term's metrics over all ranks; 0 where nothing was counted."""
        seen = [t for t in self.coefs if t in self.sums]
        first = self.sums[seen[0]] if seen else None
        values = torch.cat([self.sums[t].to(first) for t in seen]).tolist() if first is not None else []
        mine = {(t, n): values.pop(0) for t in seen for n in self.names[t]}
        sums = _added(ranks.gather(mine)) if ranks.count > 1 else mine
        found = {"loss": sum(c * sums.get((t, "loss"), 0.0) for t, c in self.coefs.items())}
        found |= {f"{t}/loss": 0.0 for t in self.coefs}
        for (term, name), value in sums.items():
            below = 1.0 if name == "loss" else self.masses[term]
            found[f"{term}/{name}"] = value / below if below else 0.0
        return found


def _added(parts: Sequence[dict[Any, float]]) -> dict[Any, float]:
    return {n: sum(p.get(n, 0.0) for p in parts) for n in dict.fromkeys(k for p in parts for k in p)}


def _exact(x: Tensor) -> torch.dtype:
    """float64 where the device has it: token counts beyond 2**24 stay exact."""
    return torch.float32 if x.device.type == "mps" else torch.float64


class Count(NamedTuple):
    """The weights of a term's elements in each part, on the device; over all ranks, what its loss is divided by, and
    the sum of the weights."""

    weights: list[Tensor]
    trained: float
    mass: float


class Part(NamedTuple):
    """Rows that go through the model at once; ``seen``: their mask, group and rank, which Python reads without waiting
    for the device."""

    rows: Rollout
    seen: Rollout


@dataclass
class Accumulator:
    """Runs forward and backward over terms; the gradients land in ``.grad`` and are not yet summed over ranks.

    Args:
        model: what computes the live tensors. ranks: the other processes.
        micro_batch: rows a forward, ``None`` for all. Groups stay whole where the objective needs them whole.
        precision: of every forward pass. backward: ``loss.backward()``, scaled or not.
    """

    model: Model
    ranks: Ranks
    micro_batch: int | None
    precision: Precision
    backward: Callable[[Tensor], None]

    def run(self, terms: Sequence[Term]) -> tuple[dict[str, float], float]:
        """Accumulate the gradient of ``sum(coef * loss)``.

        Returns:
            metrics (``loss``, and for each term ``name/loss`` and its own), and how much was trained on all ranks:
            0 means that every term was fully masked and no gradient exists.
        """
        named = list(zip(unique_names(terms), terms, strict=True))
        totals, trained, empty = Totals({n: t.coef for n, t in named}), 0.0, {}
        streams: dict[tuple[int, str, str], list[tuple[str, Term]]] = {}
        for name, term in named:
            # Terms on the same rows and weights share one forward; one that takes two passes walks alone.
            alone = name if self.two_passes(term) else ""
            streams.setdefault((id(term.data), term.view, alone), []).append((name, term))
        for (_, _, alone), stream in streams.items():
            scopes = {t.spec.scope for _, t in stream}
            parts = _parts(stream[0][1].data, scopes, self.micro_batch)
            counts: dict[Any, Count] = {}
            for _, term in stream:
                if term.weighing not in counts:
                    counts[term.weighing] = self._count(term, parts)
            counted = {name: counts[term.weighing] for name, term in stream}
            for name, count in counted.items():
                trained += count.trained
                totals.masses[name] = count.mass
                empty[f"{name}/empty"] = float(count.mass == 0)
            if alone:
                self._coupled(*stream[0], parts, counted[stream[0][0]].trained, totals)
            else:
                for i, part in enumerate(parts):
                    self._one(stream, part, {n: (c.weights[i], c.trained) for n, c in counted.items()}, totals)
        return totals.means(self.ranks) | empty, trained

    def two_passes(self, term: Term) -> bool:
        """Whether the term couples rows that are not all in one forward pass of one process."""
        divided = self.micro_batch is not None and len(term.data) > self.micro_batch
        return term.spec.scope == "batch" and (divided or self.ranks.count > 1)

    def _count(self, term: Term, parts: Sequence[Part]) -> Count:
        """The weights of a term, and what they come to over all parts and ranks."""
        device = term.data.mask.device
        every, sums = [term.weights(part.seen) for part in parts], [torch.zeros(2, dtype=torch.float64)]
        for weights in every:
            exact = weights.double()
            below = normaliser(exact, term.spec.per, term.reduce, length=term.length)
            sums.append(torch.stack([below, exact.sum()]))
        total = torch.stack(sums).sum(0)
        if self.ranks.count > 1:
            total = self.ranks.sum(total.to(device, _exact(term.data.mask)))
        return Count([w.to(device, non_blocking=True) for w in every], *total.tolist())

    def evaluate(self, view: str, part: Rollout, names: Sequence[Want]) -> dict[str, Tensor]:
        """The live tensors of a part, in single precision at least."""
        if not names:
            return {}
        model: Any = self.model
        if view != "live":
            if not hasattr(model, "at"):
                raise TypeError(f"{type(model).__name__} has only the view 'live', not {view!r}")
            model = model.at(view)
        return forward(model, part, names, self.precision)

    def _one(
        self,
        stream: Sequence[tuple[str, Term]],
        part: Part,
        counted: dict[str, tuple[Tensor, float]],
        totals: Totals,
    ) -> None:
        """Forward once, backward once, for all terms of a stream on one part."""
        live = self.evaluate(stream[0][1].view, part.rows, list(dict.fromkeys(w for _, t in stream for w in t.live)))
        losses = []
        for name, term in stream:
            loss = term.call(part.rows, {k: live[k] for k in map(_key, term.live)}, part.seen)
            reduced = reduce_loss(loss.value, *counted[name])
            _record(totals, name, loss, counted[name][0], reduced)
            losses.append(term.coef * reduced)
        total = losses[0]
        for more in losses[1:]:
            total = total + more.to(total.dtype)
        if total.requires_grad:
            self.backward(total)

    def _coupled(self, name: str, term: Term, parts: Sequence[Part], denominator: float, totals: Totals) -> None:
        """A loss that couples the whole batch, on all parts and ranks, by two passes; see :meth:`two_passes`."""
        with torch.no_grad():
            before = [self.evaluate(term.view, part.rows, term.live) for part in parts]
        mine = [_bare(part.rows, live) for part, live in zip(parts, before, strict=True)]
        shares = self.ranks.gather(Rollout.cat(mine).to("cpu")) if self.ranks.count > 1 else [Rollout.cat(mine)]
        whole = Rollout.cat(shares, regroup=True).to(term.data.mask.device)
        first = sum(len(s) for s in shares[: self.ranks.index])
        leaves = {k: whole.tensors[f"live/{k}"].detach().requires_grad_() for k in map(_key, term.live)}
        loss = term.call(whole, leaves)
        weights = term.weights(whole)
        value = reduce_loss(loss.value, weights, denominator)
        if self.ranks.main:
            _record(totals, name, loss, weights, value)
        wanted = list(leaves)
        found = torch.autograd.grad(term.coef * value, [leaves[k] for k in wanted], allow_unused=True)
        pulls = {k: g for k, g in zip(wanted, found, strict=True) if g is not None}
        row = first
        for part in parts:
            live = self.evaluate(term.view, part.rows, [w for w in term.live if _key(w) in pulls])
            products = []
            for k, g in pulls.items():
                g_part = g[row : row + len(part.rows)]
                g_part = g_part[:, : live[k].shape[1]] if live[k].ndim > 1 else g_part
                products.append((g_part * torch.where(g_part != 0, live[k], torch.zeros_like(live[k]))).sum())
            row += len(part.rows)
            if products:
                self.backward(torch.stack(products).sum())


def _key(want: Want) -> str:
    return want if isinstance(want, str) else want.__name__


def _record(totals: Totals, name: str, loss: Loss, weights: Tensor, reduced: Tensor) -> None:
    """Sums of the loss and its metrics; metrics are means under the loss's own weights."""
    exact = weights.to(_exact(weights))
    sums = [reduced.detach().to(exact.dtype)[None]]
    if loss.metrics:
        # All of them in one pass: with small models, many small sums would take longer than the step.
        every = torch.stack([v.detach().to(exact.dtype) for v in loss.metrics.values()])
        sums.append(masked(every, exact).flatten(1) @ exact.flatten())
    totals.add(name, ["loss", *loss.metrics], torch.cat(sums))


def _bare(part: Rollout, live: dict[str, Tensor]) -> Rollout:
    """The part with its live tensors stored and without what only the model reads: small enough to send."""
    return Rollout(
        samples=[Sample("")] * len(part),
        mask=part.mask,
        group=part.group,
        family=part.family,
        segments=part.segments,
        tensors={**part.tensors, **{f"live/{k}": v.detach() for k, v in live.items()}},
    )


def _parts(rollout: Rollout, scopes: Set[str], micro_batch: int | None) -> list[Part]:
    """What goes through the model at once. Rows that train nothing are left out where no other row reads them; a group
    is divided only where it is larger than a micro-batch and the loss does not read it whole."""
    seen = _seen(rollout)
    near = seen is rollout
    size = micro_batch or max(1, len(rollout))
    if scopes == {"sample"} and rollout.parent is None:
        alive = (seen.mask > 0).any(-1).nonzero()[:, 0]
        if len(alive) == len(rollout) <= size:
            return [Part(rollout, seen)]
        living = seen if len(alive) == len(rollout) else seen.select(alive)
        found = [p for whole in living.split(size) for p in _cut(whole, size)] if len(alive) else []
    elif len(rollout) <= size:
        return [Part(rollout, seen)]
    else:
        found = list(seen.split(size))
    return [Part(part, part) if near else Part(rollout.select(part["row"]), part) for part in found]


def _cut(rollout: Rollout, size: int) -> list[Rollout]:
    if len(rollout) <= size:
        return [rollout]
    return [rollout.select(rows) for rows in torch.arange(len(rollout)).split(size)]


def _seen(rollout: Rollout) -> Rollout:
    """What a step decides by, on the host, copied once; where it is there already it is the rollout itself."""
    if rollout.mask.device.type == "cpu":
        return rollout
    names = [n for n in ("group", "family", "rank", "parent", "start") if n in rollout]
    near = dict(zip(names, torch.stack([rollout[n].double() for n in names]).cpu(), strict=True))
    rank = {"rank": near.pop("rank")} if "rank" in near else {}
    numbers = {k: v.long() for k, v in near.items()}
    return Rollout(
        rollout.samples, rollout.mask.cpu(), **numbers, tensors={**rank, "row": torch.arange(len(rollout))}
    )  # fmt: skip
