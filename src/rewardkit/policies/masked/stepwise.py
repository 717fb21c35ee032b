"""A masked diffusion model one unmasking step at a time: the one step function of sampling, guidance and search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from rewardkit.policies.masked.codec import Coded, SequenceCodec
from rewardkit.policies.masked.rows import MaskedState, Rows, padded, standard_gumbel
from rewardkit.types import Sample


@dataclass(frozen=True)
class Unmask:
    """How a masked diffusion policy samples.

    Args:
        steps: the policy's time axis. At step i from 0 every mask leaves with probability ``1 / (steps - i)``.
    """

    steps: int = 16

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"Unmask.steps must be at least 1, not {self.steps}")


class MaskedSteps:
    """The methods of :class:`rewardkit.protocols.Stepwise` for :class:`MaskedPolicy`; an action is the next ids."""

    module: nn.Module
    codec: SequenceCodec
    length: int
    condition: Callable[[Any], Tensor] | None
    allowed: Tensor

    def start(self, prompts: Sequence[Any], *, sampling: Unmask | None = None, seed: int | None = None) -> MaskedState:
        """A row of masks for each prompt, or the holes of a :class:`Sample` that has an output."""
        how = sampling or Unmask()
        samples = [s if isinstance(s, Sample) else Sample(s) for s in prompts]
        coded = [self._coded(s) if s.output is not None else self.codec.blank(s.prompt, self.length) for s in samples]
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())) if seed is None else seed)
        when = [torch.randint(how.steps, (len(c.ids),), generator=generator) for c in coded]
        holes = [torch.tensor(c.ids) == self.codec.mask_id for c in coded]
        when = [torch.where(h, w, -1) for h, w in zip(holes, when, strict=True)]
        rows = self._rows([torch.tensor(c.ids) for c in coded], self._conditions(samples))
        return MaskedState(samples, rows, padded(when, -1, self._device), 0, how.steps, generator)

    def propose(self, state: MaskedState, k: int = 1) -> tuple[Tensor, Tensor]:
        """``k`` draws of the next ids, long ``[N, k, L]``, and the log-probs of what they unmask, ``[N, k]``."""
        shape = (len(state), k, state.when.shape[1], len(self.allowed))
        return self._draw(state, standard_gumbel(torch.rand(shape, generator=state.generator)).to(self._device))

    def _draw(self, state: MaskedState, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of the largest log-prob plus noise ``[N, k, L, A]``, where this step unmasks."""
        now = (state.when == state.now)[:, None]
        log_p = self._log_p(state.rows, 1 - state.now / state.steps)[:, None].expand(noise.shape)
        which = (log_p.detach() + noise).argmax(-1)
        logps = torch.where(now, log_p.gather(-1, which[..., None])[..., 0], 0.0).sum(-1)
        return torch.where(now, self.allowed.to(which.device)[which], state.rows.ids[:, None]), logps

    def step(self, state: MaskedState, actions: Tensor) -> MaskedState:
        """The ids ``[N, L]`` take the place of the old ones."""
        return replace(state, rows=replace(state.rows, ids=actions), now=state.now + 1)

    def look(self, state: MaskedState) -> list[Sample]:
        """The outputs with their holes filled by the most probable tokens; ``cut`` while there were any."""
        ids = state.rows.ids
        if not bool(state.done.all()):
            best = self.allowed.to(ids.device)[self._log_p(state.rows, 1 - state.now / state.steps).argmax(-1)]
            ids = torch.where(state.when >= state.now, best, ids)
        return self._samples(state, ids)

    def _log_p(self, rows: Rows, time: Tensor | float) -> Tensor:
        """Log-probs of the allowed tokens at every position, ``[N, L, A]``, float32."""
        spread = torch.as_tensor(time, dtype=torch.float32, device=rows.ids.device).expand(len(rows.ids))
        logits = self.module(rows.ids, spread, rows.present, rows.condition)
        return logits[..., self.allowed.to(logits.device)].float().log_softmax(-1)

    def _coded(self, sample: Sample) -> Coded:
        if sample.output is None:
            raise ValueError(f"this sample has no output to encode; its prompt begins {str(sample.prompt)[:60]!r}")
        return self.codec.ids(sample.prompt, sample.output)

    def _rows(self, ids: Sequence[Tensor], condition: Tensor | None) -> Rows:
        present = [torch.ones(len(r), dtype=torch.bool) for r in ids]
        return Rows(padded(ids, 0, self._device), padded(present, False, self._device), condition)

    def _samples(self, state: MaskedState, ids: Tensor) -> list[Sample]:
        lengths, done = state.rows.present.sum(-1).tolist(), state.done.tolist()
        return [
            replace(s, output=self.codec.output(s.prompt, row[:n]), ended="done" if finished else "cut")
            for s, row, n, finished in zip(state.samples, ids.tolist(), lengths, done, strict=True)
        ]

    def _conditions(self, samples: Sequence[Sample]) -> Tensor | None:
        if self.condition is None:
            return None
        return torch.stack([self.condition(s.prompt) for s in samples]).to(self._device)

    @property
    def _device(self) -> torch.device:
        return next(self.module.parameters()).device
