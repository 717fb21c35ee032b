"""Diffusion and flow models as policies: denoising steps are the time axis, each with the log-prob of its draw."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rewardkit.policies.diffusion.path import PathValue
from rewardkit.policies.diffusion.process import Process
from rewardkit.policies.views import Views
from rewardkit.protocols import Against, Want
from rewardkit.registry import entry
from rewardkit.types import Rollout, Sample


@dataclass(frozen=True)
class Denoise:
    """How a diffusion policy samples.

    Args:
        steps: denoising steps, the policy's time axis. eta: noise of a step; at 0 it is deterministic and has no
            density, so nothing can be trained on it by policy gradient.
        guidance: weight of classifier-free guidance, or ``None``. The guided mean is what a step draws from, and what
            its log-prob is of: guidance is part of the policy.
    """

    steps: int = 10
    eta: float = 1.0
    guidance: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or self.eta < 0:
            raise ValueError(f"Denoise needs at least one step and eta >= 0, not {self.steps} and {self.eta}")


@entry("policies:diffusion", tags=("diffusion", "flow"))
class DiffusionPolicy(Views):
    """A denoising network with its process.

    Sampled rows have the steps on their time axis; the last step, which adds no noise, has mask 0. ``encode`` noises
    given outputs instead, at ``draws`` times each, and the "log-prob" of a draw is minus half the squared error of the
    network: ``sft`` on it is denoising training, ``dpo`` Diffusion-DPO. Rows of one prompt share their times and noise,
    and so does the reference, which reads the same rollout.

    Args:
        module: ``(x [N, ...], time [N], condition [N, C] or None) -> [N, ...]``.
        process: :class:`rewardkit.policies.diffusion.process.Diffusion` or ``Flow``.
        shape: of an output. condition: from a prompt to ``[C]``, ``None`` for a model without prompts; of ``None``
            instead of a prompt, the empty condition of classifier-free guidance.
        draws: times an output in ``encode``. seed: of these draws; every call of ``encode`` has others.

    Source: Black et al. 2024 (DDPO), arXiv:2305.13301; Wallace et al. 2024 (Diffusion-DPO), arXiv:2311.12908, eq. 14.

    >>> from rewardkit.policies.diffusion import Flow, PointNet
    >>> policy = DiffusionPolicy(PointNet(2, width=8, depth=1), Flow(), (2,))
    >>> rollout = policy.sample([None], 3, sampling=Denoise(4), seed=0)
    >>> rollout.mask[0].tolist(), rollout.samples[0].output.shape
    ([1.0, 1.0, 1.0, 0.0], torch.Size([2]))
    """

    def __init__(
        self,
        module: nn.Module,
        process: Process,
        shape: Sequence[int],
        *,
        condition: Callable[[Any], Tensor] | None = None,
        draws: int = 8,
        seed: int = 0,
    ) -> None:
        self.module, self.process, self.shape = module, process, tuple(shape)
        self.condition, self.draws, self.seed, self.encoded = condition, draws, seed, 0
        self.keep_views()

    @torch.no_grad()
    def sample(self, start: Sequence[Any], n: int = 1, *, sampling: Any = None, seed: int | None = None) -> Rollout:
        """``n`` outputs a prompt with ``old_logps``; an output is a tensor of ``shape``. See :class:`Denoise`."""
        how = sampling or Denoise()
        starts = [s if isinstance(s, Sample) else Sample(s) for s in start]
        rows = [s for s in starts for _ in range(n)]
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        condition = self._conditions(rows)
        x = torch.randn((len(rows), *self.shape), generator=generator)
        x = x.to(self._device)
        states, spreads = [x], []
        for i in range(how.steps):
            index = torch.full((len(rows),), i, device=x.device)
            mean, std = self._next(x, index, condition, how)
            x = mean + std * torch.randn(x.shape, generator=generator).to(x)
            states.append(x)
            spreads.append(std.flatten())
        rollout = Rollout(
            [Sample(s.prompt, x[i].cpu(), s.source, s.hidden) for i, s in enumerate(rows)],
            (torch.stack(spreads, 1) > 0).to(x.dtype),
            torch.arange(len(starts), device=x.device).repeat_interleave(n),
            inputs={"states": torch.stack(states, 1)} | ({} if condition is None else {"condition": condition}),
            how={**asdict(how), "drawn": {"seed": seed}},
        )
        return rollout.with_tensors(old_logps=self.evaluate(rollout)["logps"])

    def encode(self, samples: Sequence[Sample]) -> Rollout:
        """Given outputs, noised at ``draws`` times; rows of one prompt share times and noise."""
        clean = torch.stack([torch.as_tensor(s.output, dtype=torch.float32) for s in samples]).to(self._device)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.encoded)
        self.encoded += 1
        shared: dict[Any, tuple[Tensor, Tensor]] = {}
        drawn = []
        for s in samples:
            key = _key(s.prompt)
            if key not in shared:
                shared[key] = (
                    self.process.draw_times(self.draws, generator),
                    torch.randn((self.draws, *self.shape), generator=generator),
                )
            drawn.append(shared[key])
        condition = self._conditions(samples)
        return Rollout(
            list(samples),
            torch.ones(len(samples), self.draws, device=clean.device),
            inputs={
                "clean": clean,
                "times": torch.stack([t for t, _ in drawn]).to(clean.device),
                "noise": torch.stack([e for _, e in drawn]).to(clean.device),
            }
            | ({} if condition is None else {"condition": condition}),
        )

    def evaluate(self, rollout: Rollout, want: Sequence[Want] = ("logps",)) -> dict[str, Tensor]:
        """``logps`` ``[B, T]``, 0 where nothing is trained, or ``fn(means [N, ...], next [N, ...], std) -> [N]``; of
        sampled rollouts also ``path_value`` ``[B]``, see :class:`rewardkit.policies.diffusion.path.PathValue`.

        For encoded rollouts a function reads what the network said and what it should have, with a ``std`` of 1.
        """
        paths: list[Any] = [w for w in want if isinstance(w, PathValue)]
        want = [w for w in want if w not in paths]
        found: dict[str, Tensor] = {w.__name__: w.fn(self._replayed(rollout, w.last), rollout.samples) for w in paths}
        if not want:
            return found
        live = rollout.mask > 0
        read = self._denoised if "noise" in rollout.inputs else self._stepped
        mean, target, std = read(rollout, live)
        for name in want:
            if name == "logps":
                values = gaussian_logp(mean, target, std, density="noise" not in rollout.inputs)
            elif isinstance(name, Against):
                with torch.no_grad():
                    other = (name.other._denoised if read == self._denoised else name.other._stepped)(rollout, live)[0]
                values = name.fn(mean, other, std)
            elif isinstance(name, str):
                raise KeyError(f"a diffusion policy evaluates logps and functions of its means, not {name!r}")
            else:
                values = name(mean, target, std)
            key = name if isinstance(name, str) else name.__name__
            found[key] = values.new_zeros(live.shape).masked_scatter(live, values)
        return found

    def _stepped(self, rollout: Rollout, live: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Means, next states and spreads of the steps that are trained: ``[N, ...]``."""
        row, i = live.nonzero(as_tuple=True)
        states, condition = rollout.inputs["states"], rollout.inputs.get("condition")
        how = Denoise(**{k: rollout.how[k] for k in ("steps", "eta", "guidance")})
        mean, std = self._next(states[row, i], i, None if condition is None else condition[row], how)
        return mean, states[row, i + 1], std

    def _replayed(self, rollout: Rollout, last: int) -> Tensor:
        """The outputs as they were drawn, ``[B, ...]``, with gradients through the last steps: noise is held fixed.

        Raises:
            ValueError: for a rollout that was not sampled.
        """
        if "states" not in rollout.inputs:
            raise ValueError("a path gradient needs outputs that this policy sampled, not encoded ones")
        states, condition = rollout.inputs["states"], rollout.inputs.get("condition")
        how = Denoise(**{k: rollout.how[k] for k in ("steps", "eta", "guidance")})
        first = max(0, how.steps - last)
        x = states[:, first]
        for i in range(first, how.steps):
            mean, _ = self._next(x, torch.full((len(x),), i, device=x.device), condition, how)
            # The next state is the one that was drawn; only its gradient is new.
            x = mean + (states[:, i + 1] - mean).detach()
        return x

    def _denoised(self, rollout: Rollout, live: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the network says of noised outputs, what it should, and ones."""
        row, k = live.nonzero(as_tuple=True)
        condition, times = rollout.inputs.get("condition"), rollout.inputs["times"][row, k]
        x, target = self.process.noised(rollout.inputs["clean"][row], rollout.inputs["noise"][row, k], times)
        said = self.module(x, times, None if condition is None else condition[row])
        return said, target, torch.ones_like(target[:, :1])

    def _next(self, x: Tensor, i: Tensor, condition: Tensor | None, how: Denoise) -> tuple[Tensor, Tensor]:
        times = self.process.times(how.steps).to(x.device)[i]
        output = self.module(x, times, condition)
        if how.guidance is not None:
            if self.condition is None or condition is None:
                raise ValueError("classifier-free guidance needs a model with prompts: pass condition=")
            empty = self.condition(None).to(condition).expand_as(condition)
            bare = self.module(x, times, empty)
            output = bare + how.guidance * (output - bare)
        return self.process.step(x, output, i, how.steps, how.eta)

    def _conditions(self, samples: Sequence[Sample]) -> Tensor | None:
        if self.condition is None:
            return None
        return torch.stack([self.condition(s.prompt) for s in samples]).to(self._device)

    @property
    def _device(self) -> torch.device:
        return next(self.module.parameters()).device


def gaussian_logp(mean: Tensor, x: Tensor, std: Tensor, *, density: bool = True) -> Tensor:
    """Log-density of ``x`` under independent Gaussians, summed over all but the first axis: ``[N]``, nats.

    Without ``density`` the normalising constant is left out: minus half the squared error at ``std`` 1.
    """
    apart = ((x.detach() - mean) / std).square()
    constant = 2 * std.log() + math.log(2 * math.pi) if density else torch.zeros_like(std)
    return -0.5 * (apart + constant).flatten(1).sum(1)


def _key(prompt: Any) -> Any:
    """Equal prompts have equal keys, whatever they are."""
    return prompt.numpy().tobytes() if isinstance(prompt, Tensor) else repr(prompt)
