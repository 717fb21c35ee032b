"""Noising processes and one stochastic step back, with the exact Gaussian that it draws from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

Prediction = Literal["epsilon", "v_prediction", "sample"]


class Process(Protocol):
    """How data become noise, and how a network's output leads back; ``N`` states at once, ``i`` numbers the steps."""

    def times(self, steps: int) -> Tensor:
        """What the network is told before each of ``steps`` steps: float ``[steps]``, noisiest first."""
        ...

    def step(self, x: Tensor, output: Tensor, i: Tensor, steps: int, eta: float) -> tuple[Tensor, Tensor]:
        """Mean, like ``x``, and standard deviation ``[N, 1, ...]`` of the next, less noisy state; 0: deterministic."""
        ...

    def draw_times(self, n: int, generator: torch.Generator | None) -> Tensor:
        """Times to train at, as :meth:`times` counts them: ``[n]``."""
        ...

    def noised(self, clean: Tensor, noise: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """The state at ``time`` and what the network should say of it."""
        ...

    def parts(self, x: Tensor, output: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """The data and the noise that states at ``time`` ``[N]`` are made of, by the network's word."""
        ...

    def scales(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """``a`` and ``b`` of ``x = a clean + b noise``, float64 ``[N]`` each."""
        ...

    def path(self, time: Tensor, steps: int) -> Tensor:
        """Times in ``steps`` even strides from the data up to ``time`` ``[N]``: ``[N, steps + 1]``."""
        ...

    def ode(self, now: Tensor, then: Tensor) -> tuple[Tensor, Tensor]:
        """``a`` and ``b`` of the deterministic step ``x_then = a x_now + b output``, float64 ``[N]`` each."""
        ...


def like(values: Tensor, x: Tensor) -> Tensor:
    """A number for each row, to be multiplied with the rows."""
    return values.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


@dataclass(frozen=True, eq=False)
class Diffusion:
    """The variance-preserving process of DDPM, and DDIM's family of steps back: ``eta`` 0 the ODE, 1 DDPM's own noise.

    ``x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) noise``. Sources: Ho et al. 2020, arXiv:2006.11239; Song et al. 2021,
    arXiv:2010.02502, eq. 12 and 16; as a policy: Black et al. 2024 (DDPO), arXiv:2305.13301.

    Args:
        alphas: ``a_t``, ``[train_steps]``, falling; a diffusers scheduler's ``alphas_cumprod``.
        prediction: what the network says: the noise, ``v = sqrt(a) noise - sqrt(1 - a) x_0``, or the data.
        clip: data lie within plus and minus this, and the network's word on them is held there in a step.

    >>> d = Diffusion.cosine(100)
    >>> d.times(4).tolist()
    [75.0, 50.0, 25.0, 0.0]
    """

    alphas: Tensor
    prediction: Prediction = "epsilon"
    clip: float | None = None

    @classmethod
    def cosine(cls, train_steps: int = 1000, prediction: Prediction = "epsilon") -> Diffusion:
        """The schedule of Nichol and Dhariwal 2021, arXiv:2102.09672, eq. 17."""
        t = torch.arange(train_steps + 1, dtype=torch.float64) / train_steps
        f = torch.cos((t + 0.008) / 1.008 * torch.pi / 2).square()
        betas = (1 - f[1:] / f[:-1]).clamp(max=0.999)
        return cls((1 - betas).cumprod(0), prediction)

    @classmethod
    def of(cls, scheduler: object) -> Diffusion:
        """The process of a diffusers scheduler that has ``alphas_cumprod`` (DDPM, DDIM and their kin).

        Raises:
            ValueError: for another scheduler.
        """
        alphas, config = getattr(scheduler, "alphas_cumprod", None), getattr(scheduler, "config", None)
        if alphas is None or config is None:
            raise ValueError(f"{type(scheduler).__name__} has no alphas_cumprod: for flow matching take Flow()")
        clip = getattr(config, "clip_sample_range", 1.0) if getattr(config, "clip_sample", False) else None
        return cls(alphas.double(), config.prediction_type, clip)

    def times(self, steps: int) -> Tensor:
        if not 1 <= steps <= len(self.alphas):
            raise ValueError(f"steps lie between 1 and the {len(self.alphas)} of training, not {steps}")
        return torch.arange(steps - 1, -1, -1) * (len(self.alphas) // steps) * 1.0

    def step(self, x: Tensor, output: Tensor, i: Tensor, steps: int, eta: float) -> tuple[Tensor, Tensor]:
        before = self.alphas.to(x.device)[self.times(steps).long().to(x.device)]
        after = torch.cat([before[1:], before.new_ones(1)])
        now, next_ = like(before[i], x), like(after[i], x)
        clean, noise = self._parts(x, output, now)
        if self.clip is not None:
            clean = clean.clamp(-self.clip, self.clip)
            noise = (x - now.sqrt() * clean) / (1 - now).sqrt()
        std = eta * ((1 - next_) / (1 - now) * (1 - now / next_)).clamp(min=0).sqrt()
        return next_.sqrt() * clean + (1 - next_ - std.square()).clamp(min=0).sqrt() * noise, std

    def _parts(self, x: Tensor, output: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
        """Data and noise that a state is made of, by the network's word."""
        if self.prediction == "epsilon":
            return (x - (1 - a).sqrt() * output) / a.sqrt(), output
        if self.prediction == "sample":
            return output, (x - a.sqrt() * output) / (1 - a).sqrt()
        return a.sqrt() * x - (1 - a).sqrt() * output, a.sqrt() * output + (1 - a).sqrt() * x

    def parts(self, x: Tensor, output: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        return self._parts(x, output, like(self._alphas(time), x))

    def _alphas(self, time: Tensor) -> Tensor:
        """``a_t``; the data themselves stand at time -1, with 1."""
        return torch.cat([self.alphas, self.alphas.new_ones(1)]).to(time.device)[time.long()].double()

    def scales(self, time: Tensor) -> tuple[Tensor, Tensor]:
        a = self._alphas(time)
        return a.sqrt(), (1 - a).sqrt()

    def path(self, time: Tensor, steps: int) -> Tensor:
        up = (time[:, None] * torch.arange(1, steps + 1, device=time.device) / steps).floor()
        return torch.cat([-torch.ones_like(up[:, :1]), up], 1)

    def ode(self, now: Tensor, then: Tensor) -> tuple[Tensor, Tensor]:
        (a, b), (a_then, b_then) = self.scales(now), self.scales(then)
        if self.prediction == "epsilon":
            return a_then / a, b_then - a_then * b / a
        if self.prediction == "sample":
            return b_then / b, a_then - b_then * a / b
        return a_then * a + b_then * b, b_then * a - a_then * b

    def draw_times(self, n: int, generator: torch.Generator | None) -> Tensor:
        return torch.randint(len(self.alphas), (n,), generator=generator).float()

    def noised(self, clean: Tensor, noise: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        a = like(self.alphas.to(clean.device)[time.long()], clean)
        targets = {
            "epsilon": noise, "sample": clean, "v_prediction": a.sqrt() * noise - (1 - a).sqrt() * clean,
        }  # fmt: skip
        return a.sqrt() * clean + (1 - a).sqrt() * noise, targets[self.prediction]


@dataclass(frozen=True, eq=False)
class Flow:
    """Rectified flow, sampled by an SDE with the same marginals; ``eta`` scales its noise and 0 is the ODE.

    ``x_s = (1 - s) x_0 + s noise`` and the network says ``noise - x_0``. With ``g(s) = eta sqrt(s / (1 - s))``::

        x' = x + [v + g**2 / (2 s) (x + (1 - s) v)] ds + g sqrt(-ds) z

    Sources: Lipman et al. 2023, arXiv:2210.02747; Liu et al. 2025 (Flow-GRPO), arXiv:2505.05470, eq. 9 and 12.

    Args:
        shift: of the noise levels, as in Stable Diffusion 3: ``shift s / (1 + (shift - 1) s)``.
        top: the noisiest level that a step begins at: at 1 the noise of the SDE has no bound.
    """

    shift: float = 1.0
    top: float = 0.98

    def _levels(self, steps: int) -> Tensor:
        s = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        return self.shift * s / (1 + (self.shift - 1) * s)

    def times(self, steps: int) -> Tensor:
        return self._levels(steps)[:-1].float()

    def step(self, x: Tensor, output: Tensor, i: Tensor, steps: int, eta: float) -> tuple[Tensor, Tensor]:
        levels = self._levels(steps).to(x.device)
        s, ds = like(levels[i], x), like(levels[i + 1] - levels[i], x)
        held = s.clamp(max=self.top)
        g = torch.where(like(levels[i + 1], x) > 0, eta * (held / (1 - held)).sqrt(), torch.zeros_like(s))
        drift = output + g.square() / (2 * s) * (x + (1 - s) * output)
        return x + drift * ds, g * (-ds).sqrt()

    def parts(self, x: Tensor, output: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        s = like(time, x)
        return x - s * output, x + (1 - s) * output

    def scales(self, time: Tensor) -> tuple[Tensor, Tensor]:
        return 1 - time.double(), time.double()

    def path(self, time: Tensor, steps: int) -> Tensor:
        return time[:, None] * torch.arange(steps + 1, device=time.device) / steps

    def ode(self, now: Tensor, then: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(now.double()), then.double() - now.double()

    def draw_times(self, n: int, generator: torch.Generator | None) -> Tensor:
        return torch.rand(n, generator=generator)

    def noised(self, clean: Tensor, noise: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        s = like(time, clean)
        return (1 - s) * clean + s * noise, noise - clean
