"""Masked (absorbing-state) discrete diffusion as a policy: the unmasking steps of the sampler are the time axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rewardkit.policies.draws import shared_keys
from rewardkit.policies.masked.codec import SequenceCodec
from rewardkit.policies.masked.exact import distribution, sequences
from rewardkit.policies.masked.path import GumbelValue, PathKL
from rewardkit.policies.masked.rows import Rows, gumbel, padded
from rewardkit.policies.masked.stepwise import MaskedSteps, Unmask
from rewardkit.policies.modes import evaluating
from rewardkit.policies.path import PathValue
from rewardkit.policies.views import Views
from rewardkit.protocols import Against, Want
from rewardkit.registry import entry
from rewardkit.types import Cost, Rollout, Sample

EARLIEST = 1e-3
"""The smallest time at which given outputs are masked: the weight of a draw is one over its time."""


@entry("policies:masked", aliases=("discrete_diffusion", "mdlm"), tags=("discrete-diffusion", "text", "bio"))
class MaskedPolicy(MaskedSteps, Views):
    """A denoiser that fills the holes of a sequence, a few at each step.

    The log-prob of a step is that of the tokens that were written in it. Which positions are unmasked does not depend
    on weights and has none. ``encode`` masks given outputs instead, at ``draws`` times each; the "log-prob" of a draw
    at time t is ``1 / t`` times the log-prob of its masked tokens, whose mean over draws is the evidence bound: ``sft``
    is masked-diffusion training, ``dpo`` compares bounds. Rows of one prompt, or of one comparison, share times and
    masks, and so does the reference, which reads the same rollout.

    Args:
        module: ``(ids [N, L] or probabilities [N, L, V], time [N], present [N, L], condition [N, C] or None)`` to
            logits ``[N, L, V]``, see :mod:`rewardkit.policies.masked.nets`.
        codec: between outputs and ids. length: of an output, where a start has none.
        condition: from a prompt to ``[C]``. draws: times an output in ``encode``. seed: of these draws; every call of
            ``encode`` has others. chunk: positions whose logits exist at one time, padding and given ones included.

    Source: Sahoo et al. 2024 (MDLM), arXiv:2406.07524, equations 8 and 10, log-linear schedule.

    >>> from rewardkit.policies.masked import Alphabet, SequenceNet
    >>> policy = MaskedPolicy(SequenceNet(5, width=8, depth=1), Alphabet("ACGT"), 6)
    >>> rollout = policy.sample([None], 2, sampling=Unmask(3), seed=0)
    >>> len(rollout.samples[0].output), rollout["old_logps"].shape
    (6, torch.Size([2, 3]))
    """

    def __init__(
        self,
        module: nn.Module,
        codec: SequenceCodec,
        length: int,
        *,
        condition: Callable[[Any], Tensor] | None = None,
        draws: int = 8,
        seed: int = 0,
        chunk: int = 2**18,
    ) -> None:
        self.module, self.codec, self.length, self.condition = module, codec, length, condition
        self.draws, self.seed, self.chunk, self.encoded = draws, seed, chunk, 0
        self.allowed = torch.tensor([i for i in range(codec.size) if i not in set(codec.forbidden)])
        self.keep_views()

    @torch.no_grad()
    def sample(
        self, start: Sequence[Any], n: int = 1, *, sampling: Unmask | None = None, seed: int | None = None
    ) -> Rollout:
        """``n`` outputs a start with ``old_logps``; see :class:`Unmask`. A :class:`Sample` with an output has its holes
        filled."""
        how = sampling or Unmask()
        state = self.start([s for s in start for _ in range(n)], sampling=how, seed=seed)
        seeds = torch.randint(2**62, (len(state),), generator=state.generator)
        lengths = state.rows.present.sum(-1).tolist()
        noise = gumbel(seeds.tolist(), lengths, len(self.allowed), self._device)[:, None]
        when, logps = state.when, []
        with evaluating(self.module):
            for _ in range(how.steps):
                actions, said = self._draw(state, noise)
                state = self.step(state, actions[:, 0])
                logps.append(said[:, 0])
        live = when.amax(-1)[:, None] >= torch.arange(how.steps, device=when.device)
        condition = state.rows.condition
        return Rollout(
            self._samples(state, state.rows.ids),
            live.float(),
            torch.arange(len(start), device=when.device).repeat_interleave(n),
            tensors={"old_logps": torch.stack(logps, 1)},
            inputs={"ids": _ragged(state.rows.ids, lengths), "when": _ragged(when, lengths), "seed": seeds}
            | ({} if condition is None else {"condition": condition}),
            how={"steps": how.steps, "drawn": {"seed": seed}},
            cost=Cost(calls=int(live.sum())),
        )

    def encode(self, samples: Sequence[Sample], group: Tensor | None = None) -> Rollout:
        """Given outputs, masked at ``draws`` times; rows of one ``group``, by default of one prompt, share times and
        masks.

        Args:
            group: long ``[B]``, see :func:`rewardkit.policies.draws.shared_keys`.
        """
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.encoded)
        self.encoded += 1
        coded = [self._coded(s) for s in samples]
        longest = max(len(c.ids) for c in coded)
        shared: dict[Any, tuple[Tensor, Tensor]] = {}
        times, hidden = [], []
        for key, c in zip(shared_keys(samples, group), coded, strict=True):
            if key not in shared:
                # One number in each part of (0, 1): the mean over draws is the bound, with little noise.
                spread = (torch.arange(self.draws) + torch.rand(self.draws, generator=generator)) / self.draws
                uniform = torch.rand((self.draws, longest), generator=generator)
                shared[key] = EARLIEST + (1 - EARLIEST) * spread, uniform
            time, uniform = shared[key]
            times.append(time)
            # What the policy never writes (a hole, an unknown word) has no log-prob: it is given.
            free = torch.tensor(c.free) & torch.isin(torch.tensor(c.ids), self.allowed)
            hidden.append((uniform[:, : len(c.ids)] < time[:, None]) & free)
        condition = self._conditions(samples)
        return Rollout(
            list(samples),
            torch.ones(len(samples), self.draws, device=self._device),
            inputs={"ids": [torch.tensor(c.ids) for c in coded], "hidden": hidden, "times": torch.stack(times)}
            | ({} if condition is None else {"condition": condition}),
        )

    def evaluate(self, rollout: Rollout, want: Sequence[Want] = ("logps",)) -> dict[str, Tensor]:
        """``logps`` and ``entropy`` ``[B, T]``, 0 where nothing is trained; a function ``fn(log-probs [n, A] of the
        allowed tokens, targets [n]) -> [n]`` of the positions that a step writes, added up for each step.

        Of sampled rollouts also ``path_value`` ``[B]`` and ``path_kl`` ``[B, T]``, see
        :mod:`rewardkit.policies.masked.path`.

        Raises:
            KeyError: for an unknown name. ValueError: for a path of outputs that were not sampled.
        """
        rows = self._rows(rollout.inputs["ids"], rollout.inputs.get("condition"))
        found: dict[str, Tensor] = {}
        plain: dict[str, Callable[..., Tensor] | Against] = {}
        values: dict[GumbelValue, PathKL | None] = {}
        for w in want:
            if isinstance(w, (GumbelValue, PathKL)) and "when" not in rollout.inputs:
                raise ValueError("a path needs outputs that this policy sampled, not encoded ones")
            if isinstance(w, GumbelValue):
                values.setdefault(w, None)
            elif isinstance(w, PathValue):
                raise KeyError("the path of a discrete policy is relaxed: ask with policies.masked.GumbelValue")
            elif isinstance(w, PathKL) and w.along is not None:
                values[w.along] = w
            elif isinstance(w, PathKL):
                found |= self._steps(rollout, rows, {"path_kl": Against(_kl, w.other)}, whole=True)
            else:
                plain[w if isinstance(w, str) else w.__name__] = _function(w)
        for value, kl in values.items():
            outputs, gaps = self._relaxed(rollout, rows, value, kl)
            if value in want:
                found["path_value"] = value.fn(outputs, rollout.samples)
            if kl is not None:
                found["path_kl"] = gaps
        return found | (self._steps(rollout, rows, plain) if plain else {})

    def _steps(
        self, rollout: Rollout, rows: Rows, functions: dict[str, Any], *, whole: bool = False
    ) -> dict[str, Tensor]:
        """Each function, added up over the positions that a step writes, times the weight of the step: ``[B, T]``.

        Args:
            whole: over all masked positions instead, times the probability that one is written.
        """
        live = rollout.mask > 0
        row, i = live.nonzero(as_tuple=True)
        if "when" in rollout.inputs:
            steps, when = rollout.how["steps"], padded(rollout.inputs["when"], -1, live.device)[row]
            hidden, time = when >= i[:, None], 1 - i / steps
            scored = hidden if whole else when == i[:, None]
            weight = 1 / (steps - i) if whole else torch.ones_like(time)
        else:
            hidden = padded(rollout.inputs["hidden"], False, live.device)[row, i]
            scored, time = hidden, rollout.inputs["times"].to(live.device)[row, i]
            weight = 1 / time
        run = partial(self._piece, rows, list(functions.values()))
        split = [x.split(max(1, self.chunk // rows.ids.shape[1])) for x in (row, hidden, scored, time)]
        pieces = list(zip(*split, strict=True)) if len(row) else []
        again = torch.is_grad_enabled() and len(pieces) > 1
        parts = [checkpoint(run, *piece, use_reentrant=False) if again else run(*piece) for piece in pieces]
        columns = [weight * torch.cat(values) for values in zip(*parts, strict=True)]
        if not parts:
            return {name: torch.zeros(live.shape, device=live.device) for name in functions}
        return {
            name: values.new_zeros(live.shape).masked_scatter(live, values)
            for name, values in zip(functions, columns, strict=True)
        }

    def _piece(
        self, rows: Rows, functions: list[Any], row: Tensor, hidden: Tensor, scored: Tensor, time: Tensor
    ) -> tuple[Tensor, ...]:
        """Each function of some states, added up over the scored positions: ``[n]``."""
        here = rows.select(row)
        masked = replace(here, ids=here.ids.masked_fill(hidden, self.codec.mask_id))
        at, place = scored.nonzero(as_tuple=True)
        log_p = self._log_p(masked, time)[at, place]
        targets = torch.searchsorted(self.allowed.to(row.device), here.ids[at, place])
        found = []
        for fn in functions:
            if isinstance(fn, Against):
                with torch.no_grad():
                    others = [other._log_p(masked, time)[at, place] for other in fn.others]
                values = fn.fn(log_p, *others, targets)
            else:
                values = fn(log_p, targets)
            found.append(values.new_zeros(len(row)).index_add(0, at, values))
        return tuple(found)

    def _relaxed(self, rollout: Rollout, rows: Rows, value: GumbelValue, kl: PathKL | None) -> tuple[Tensor, Tensor]:
        """The outputs ``[B, L, V]`` with gradients through the last steps, and the KL of all steps ``[B, T]``."""
        steps, device = rollout.how["steps"], rows.ids.device
        when = padded(rollout.inputs["when"], -1, device)
        lengths = rows.present.sum(-1).tolist()
        noise = gumbel(rollout.inputs["seed"].tolist(), lengths, len(self.allowed), device)
        drawn = F.one_hot(rows.ids, self.codec.size).float() * rows.present[..., None]
        hole = F.one_hot(torch.tensor(self.codec.mask_id, device=device), self.codec.size).float()
        first = max(0, steps - value.last)
        x = torch.where((when >= first)[..., None], hole, drawn)
        gaps = []
        for i in range(0 if kl else first, steps):
            # Before the first step with gradient the states are those that were drawn.
            state = x if i >= first else torch.where((when >= i)[..., None], hole, drawn)
            log_p = self._log_p(replace(rows, ids=state), 1 - i / steps)
            if kl is not None:
                gap = _kl(log_p, kl.other._log_p(replace(rows, ids=state), 1 - i / steps))
                gaps.append(torch.where(when >= i, gap, 0.0).sum(-1) / (steps - i))
            if i >= first:
                soft = F.softmax((log_p + noise) / value.temperature, -1)
                full = soft.new_zeros(drawn.shape).index_copy(-1, self.allowed.to(device), soft)
                token = full if value.soft else drawn + full - full.detach()
                x = torch.where((when == i)[..., None], token, x)
        return x, torch.stack(gaps, 1) if gaps else rollout.mask

    def enumerate(self, prompt: Any, *, sampling: Unmask | None = None) -> tuple[list[Sample], Tensor]:
        """Every output of ``length`` with its exact probability under the sampler, with gradients.

        For short sequences: the work grows with ``(letters + 1) ** (2 length)``.
        """
        ids = torch.cat([self.allowed, torch.tensor([self.codec.mask_id])])
        condition = self._conditions([Sample(prompt)])

        def log_p(states: Tensor, time: float) -> Tensor:
            given = None if condition is None else condition.expand(len(states), -1)
            return self._log_p(Rows(ids[states], torch.ones_like(states, dtype=torch.bool), given), time)

        found = distribution(log_p, len(self.allowed), self.length, (sampling or Unmask()).steps)
        every = self.allowed[sequences(len(self.allowed), self.length)].tolist()
        return [Sample(prompt, self.codec.output(prompt, row)) for row in every], found


def _ragged(x: Tensor, lengths: Sequence[int]) -> list[Tensor]:
    return [row[:n].cpu() for row, n in zip(x, lengths, strict=True)]


def _function(want: Want) -> Callable[..., Tensor] | Against:
    """The function of a name.

    Raises:
        KeyError: for an unknown one.
    """
    if not isinstance(want, str):
        return want
    known = {"logps": _picked, "entropy": _entropy}
    if want not in known:
        raise KeyError(f"a masked policy evaluates {sorted(known)} and functions of its log-probs, not {want!r}")
    return known[want]


def _picked(log_p: Tensor, targets: Tensor) -> Tensor:
    return log_p.gather(-1, targets[:, None])[:, 0]


def _entropy(log_p: Tensor, targets: Tensor) -> Tensor:
    return -(log_p.exp() * log_p).sum(-1)


def _kl(log_p: Tensor, log_q: Tensor, targets: Tensor | None = None) -> Tensor:
    return (log_p.exp() * (log_p - log_q)).sum(-1)
