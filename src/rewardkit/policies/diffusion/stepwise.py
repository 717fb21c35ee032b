"""A sampler one denoising step at a time; whole samples are drawn by the same steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from rewardkit.policies.diffusion.condition import Condition, each
from rewardkit.policies.diffusion.process import Process
from rewardkit.policies.diffusion.sampling import Denoise, Latent, gaussian_logp
from rewardkit.types import Sample


@dataclass(frozen=True, eq=False)
class NoisyState:
    """``N`` outputs before the same step. See :class:`rewardkit.protocols.State`.

    Args:
        starts: prompts. x: ``[N, ...]``. i: steps that were made. condition: what the network is told of each row.
        how, generator: how steps are drawn.
    """

    starts: list[Sample]
    x: Tensor
    i: int
    condition: Condition
    how: Denoise
    generator: torch.Generator
    # What a network said of these states: proposals and looks share one call.
    said: dict[Any, Tensor] = field(init=False, default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def done(self) -> Tensor:
        """Whether no noise is left: of all rows or none, bool ``[N]``."""
        return torch.full((len(self),), self.i >= self.how.steps)

    def select(self, rows: Tensor) -> NoisyState:
        """These rows, in this order."""
        rows = torch.as_tensor(rows).to(self.x.device)
        starts = [self.starts[i] for i in rows.tolist()]
        chosen = replace(self, starts=starts, x=self.x[rows], condition=each(self.condition, lambda c: c[rows]))
        chosen.said.update({key: output[rows] for key, output in self.said.items()})
        return chosen


class DenoiseSteps:
    """The methods of :class:`rewardkit.protocols.Stepwise` for diffusion policies; an action is the next state."""

    module: nn.Module
    process: Process
    shape: tuple[int, ...]
    version: Any
    call: Any
    _device: Any
    outputs: Callable[[Tensor], Tensor]
    _conditions: Callable[[Sequence[Sample]], Condition]
    _said: Callable[[Tensor, Tensor, Condition, Denoise], Tensor]

    def start(self, prompts: Sequence[Any], *, sampling: Denoise | None = None, seed: int | None = None) -> NoisyState:
        """Noise for each prompt; a :class:`Latent` is continued from where it stands.

        Raises:
            ValueError: for rows that do not all stand before the same step.
        """
        rows, how = [s if isinstance(s, Sample) else Sample(s) for s in prompts], sampling or Denoise()
        chance = torch.Generator().manual_seed(int(torch.randint(2**62, ())) if seed is None else seed)
        latents = [s.output for s in rows if isinstance(s.output, Latent)]
        begun, last = {y.step for y in latents} or {0}, how.steps if how.stop is None else how.stop
        if (latents and len(latents) < len(rows)) or len(begun) > 1 or max(begun) > last:
            raise ValueError(f"rows are continued from one step, at most {last}; these stand before {sorted(begun)}")
        x = torch.stack([y.x for y in latents]) if latents else torch.randn((len(rows), *self.shape), generator=chance)
        return NoisyState(rows, x.to(self._device), begun.pop(), self._conditions(rows), how, chance)

    def propose(self, state: NoisyState, k: int = 1) -> tuple[Tensor, Tensor | None]:
        """``k`` next states a row, ``[N, k, ...]``, and their log-probs ``[N, k]``; ``None`` where no noise is added,
        in the last step and with an ``eta`` of 0."""
        mean, std = self.transition(state)
        noise = torch.randn((len(state), k, *self.shape), generator=state.generator).to(mean)
        drawn = mean[:, None] + std[:, None] * noise
        if not bool((std > 0).all()):
            return drawn, None
        each = [gaussian_logp(mean, drawn[:, j], std) for j in range(k)]
        return drawn, torch.stack(each, 1)

    def transition(self, state: NoisyState) -> tuple[Tensor, Tensor]:
        """Mean ``[N, ...]`` and standard deviation ``[N, 1, ...]`` of the next state.

        Raises:
            ValueError: where no noise is left.
        """
        if state.i >= state.how.steps:
            raise ValueError(f"this state has made all its {state.how.steps} steps")
        return self.process.step(state.x, self.predict(state), _index(state), state.how.steps, state.how.eta)

    def step(self, state: NoisyState, actions: Tensor) -> NoisyState:
        """Go on with these next states, ``[N, ...]``; a finished state stays as it is."""
        return state if state.i >= state.how.steps else replace(state, x=actions, i=state.i + 1)

    def look(self, state: NoisyState) -> list[Sample]:
        """The outputs that the network takes the states for: the mean of what each may become (Tweedie's formula)."""
        done, x = state.i >= state.how.steps, state.x
        if not done:
            times = self.process.times(state.how.steps).to(x.device)[_index(state)]
            x, _ = self.process.parts(x, self.predict(state), times)
        outputs = self.outputs(x).cpu()
        return [
            replace(s, output=y, ended="done" if done else "cut") for s, y in zip(state.starts, outputs, strict=True)
        ]

    def predict(self, state: NoisyState) -> Tensor:
        """What the network says of the states, ``[N, ...]``, guided as the policy is."""
        # Of these weights, called in this way (guidance changes the call), with or without a graph.
        key = (self.version, self.call, torch.is_grad_enabled())
        if key not in state.said:
            state.said[key] = self._said(state.x, _index(state), state.condition, state.how)
        return state.said[key]


def cut(state: NoisyState) -> list[Sample]:
    """The states as partial samples, to be continued."""
    return [
        replace(s, output=Latent(x.cpu(), state.i), ended="cut") for s, x in zip(state.starts, state.x, strict=True)
    ]


def forks(rows: int, n: int, begun: int) -> tuple[Tensor | None, Tensor | None]:
    """``parent`` and ``start`` of rows that were continued ``n`` at a time: each set's first row is their parent."""
    if not begun or n == 1:
        return None, None
    row = torch.arange(rows)
    first = row % n == 0
    return (row - row % n).masked_fill(first, -1), (0 * row + begun).masked_fill(first, -1)


def _index(state: NoisyState) -> Tensor:
    return torch.full((len(state),), state.i, device=state.x.device)
