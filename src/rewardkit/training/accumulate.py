"""Exact accumulation: the gradient of a sum of terms does not depend on how the rows were divided.

Denominators are known for the whole step before the first backward: they need masks, groups and ranks, never a model.
Objectives that couple the whole batch take two passes where its rows are divided: their live tensors without graph, the
gradient with respect to those small tensors, then a backward by micro-batch of the product of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rewardkit.objectives.base import Loss, normaliser, reduce_loss
from rewardkit.protocols import Model, Want
from rewardkit.training.modes import Precision, forward
from rewardkit.training.ranks import Ranks
from rewardkit.training.term import Term, unique_names
from rewardkit.types import Rollout, Sample


@dataclass
class Totals:
    """Running sums on the device; nothing waits for it until :meth:`means`."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, Tensor] = field(default_factory=dict)

    def add(self, name: str, total: Tensor, count: Tensor | None = None) -> None:
        total = total.detach()
        self.sums[name] = self.sums[name] + total if name in self.sums else total
        if count is not None:
            self.counts[name] = self.counts[name] + count if name in self.counts else count

    def means(self, ranks: Ranks) -> dict[str, float]:
        """Sums over ranks, divided by their counts where they have one; 0 where the count is 0."""
        names = [*self.sums, *self.counts]
        tensors = [*self.sums.values(), *self.counts.values()]
        values = torch.stack([t.to(tensors[0].device, _exact(t)) for t in tensors]).tolist() if tensors else []
        mine = list(zip(names, values, strict=True))
        sums, counts = dict(mine[: len(self.sums)]), dict(mine[len(self.sums) :])
        if ranks.count > 1:
            gathered = ranks.gather((sums, counts))
            sums = _added([s for s, _ in gathered])
            counts = _added([c for _, c in gathered])
        return {n: s / counts[n] if counts.get(n) else (0.0 if n in counts else s) for n, s in sums.items()}


def _added(parts: Sequence[dict[str, float]]) -> dict[str, float]:
    return {n: sum(p.get(n, 0.0) for p in parts) for n in dict.fromkeys(k for p in parts for k in p)}


def _exact(x: Tensor) -> torch.dtype:
    """float64 where the device has it: token counts beyond 2**24 stay exact."""
    return torch.float32 if x.device.type == "mps" else torch.float64


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
        totals, trained = Totals(), 0.0
        streams: dict[tuple[int, str, str], list[tuple[str, Term]]] = {}
        for name, term in zip(unique_names(terms), terms, strict=True):
            # Terms on the same rows and weights share one forward; one that takes two passes walks alone.
            alone = name if self.two_passes(term) else ""
            streams.setdefault((id(term.data), term.view, alone), []).append((name, term))
        for (_, _, alone), stream in streams.items():
            scopes = {t.spec.scope for _, t in stream}
            parts = _parts(stream[0][1].data, scopes, self.micro_batch)
            counted = {name: self._denominators(term, parts) for name, term in stream}
            trained += sum(float(d) for d, _ in counted.values())
            for name, (_, mass) in counted.items():
                totals.add("loss", torch.zeros_like(mass))
                totals.add(f"{name}/loss", torch.zeros_like(mass))
                totals.add(f"{name}/empty", (mass == 0).to(mass.dtype) / self.ranks.count)
            if alone:
                self._coupled(*stream[0], parts, counted[stream[0][0]][0], totals)
            else:
                for part in parts:
                    self._one(stream, part, {n: d for n, (d, _) in counted.items()}, totals)
        return totals.means(self.ranks), trained

    def two_passes(self, term: Term) -> bool:
        """Whether the term couples rows that are not all in one forward pass of one process."""
        divided = self.micro_batch is not None and len(term.data) > self.micro_batch
        return term.spec.scope == "batch" and (divided or self.ranks.count > 1)

    def _denominators(self, term: Term, parts: Sequence[Rollout]) -> tuple[Tensor, Tensor]:
        """What the loss is divided by, and the mass of its weights, over all parts and ranks."""
        device = term.data.mask.device
        zero = torch.zeros((), dtype=_exact(term.data.mask), device=device)
        total = torch.stack([zero, zero])
        for part in parts:
            weights = term.weights(part).to(zero.dtype)
            below = normaliser(weights, term.spec.per, term.reduce, length=term.length)
            total = total + torch.stack([below.to(zero.dtype), weights.sum()])
        total = self.ranks.sum(total)
        return total[0], total[1]

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
        self, stream: Sequence[tuple[str, Term]], part: Rollout, denominators: dict[str, Tensor], totals: Totals
    ) -> None:
        """Forward once, backward once, for all terms of a stream on one part."""
        live = self.evaluate(stream[0][1].view, part, list(dict.fromkeys(w for _, t in stream for w in t.live())))
        losses = []
        for name, term in stream:
            loss = term.call(part, {k: live[k] for k in map(_key, term.live())})
            weights = term.weights(part)
            reduced = term.coef * reduce_loss(loss.value, weights, denominators[name])
            _record(totals, name, term, loss, weights, denominators[name])
            losses.append(reduced)
        total = torch.stack([x.to(losses[0].dtype) for x in losses]).sum()
        if total.requires_grad:
            self.backward(total)

    def _coupled(self, name: str, term: Term, parts: Sequence[Rollout], denominator: Tensor, totals: Totals) -> None:
        """A loss that couples the whole batch, on all parts and ranks, by two passes; see :meth:`two_passes`."""
        with torch.no_grad():
            seen = [self.evaluate(term.view, part, term.live()) for part in parts]
        mine = [_bare(part, live) for part, live in zip(parts, seen, strict=True)]
        shares = self.ranks.gather(Rollout.cat(mine).to("cpu")) if self.ranks.count > 1 else [Rollout.cat(mine)]
        whole = Rollout.cat(shares, regroup=True).to(term.data.mask.device)
        first = sum(len(s) for s in shares[: self.ranks.index])
        leaves = {k: whole.tensors[f"live/{k}"].detach().requires_grad_() for k in map(_key, term.live())}
        loss = term.call(whole, leaves)
        weights = term.weights(whole)
        value = term.coef * reduce_loss(loss.value, weights, denominator)
        if self.ranks.main:
            _record(totals, name, term, loss, weights, denominator)
        wanted = list(leaves)
        found = torch.autograd.grad(value, [leaves[k] for k in wanted], allow_unused=True)
        pulls = {k: g for k, g in zip(wanted, found, strict=True) if g is not None}
        row = first
        for part in parts:
            live = self.evaluate(term.view, part, [w for w in term.live() if _key(w) in pulls])
            products = []
            for k, g in pulls.items():
                g_part = g[row : row + len(part)]
                g_part = g_part[:, : live[k].shape[1]] if live[k].ndim > 1 else g_part
                products.append((g_part * torch.where(g_part != 0, live[k], torch.zeros_like(live[k]))).sum())
            row += len(part)
            if products:
                self.backward(torch.stack(products).sum())


def _key(want: Want) -> str:
    return want if isinstance(want, str) else want.__name__


def _record(totals: Totals, name: str, term: Term, loss: Loss, weights: Tensor, denominator: Tensor) -> None:
    """Sums of the loss and its metrics; metrics are means under the loss's own weights."""
    exact = weights.to(_exact(weights))
    value = reduce_loss(loss.value.detach(), weights, 1.0).to(exact.dtype)
    value = value / denominator.clamp(min=torch.finfo(exact.dtype).tiny)
    totals.add(f"{name}/loss", value)
    totals.add("loss", term.coef * value)
    if not loss.metrics:
        return
    count = exact.sum()
    # All metrics in one pass: with small models, many small sums would take longer than the step.
    every = torch.stack([values.detach().to(exact.dtype) for values in loss.metrics.values()])
    sums = torch.where(exact != 0, every * exact, torch.zeros_like(every)).flatten(1).sum(1)
    for metric, total in zip(loss.metrics, sums.unbind(), strict=True):
        totals.add(f"{name}/{metric}", total, count)


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


def _parts(rollout: Rollout, scopes: Set[str], micro_batch: int | None) -> list[Rollout]:
    """What goes through the model at once. Rows that train nothing are left out where no other row reads them."""
    if scopes == {"sample"} and rollout.parent is None:
        alive = (rollout.mask > 0).any(-1).nonzero()[:, 0]
        size = micro_batch or max(1, len(alive))
        if len(alive) == len(rollout) <= size:
            return [rollout]
        return [rollout.select(rows) for rows in alive.split(size)] if len(alive) else []
    if micro_batch is None or len(rollout) <= micro_batch:
        return [rollout]
    return list(rollout.split(micro_batch))
