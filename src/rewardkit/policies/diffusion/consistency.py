"""Consistency models: a network that leads any noisy state to the data at once, sampled in a few noisy jumps.

They are diffusion policies with another process: the same network, the same ``sample``, the same log-probs, one
Gaussian for each jump. They are made out of a diffusion policy by distillation, which is ``sft`` on what
:class:`Distilled` gives.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rewardkit.merging.linear import ema
from rewardkit.policies.diffusion.condition import from_inputs, to_inputs
from rewardkit.policies.diffusion.policy import DiffusionPolicy
from rewardkit.policies.diffusion.process import Process, like
from rewardkit.policies.weights import read, write
from rewardkit.registry import entry
from rewardkit.types import Rollout, Sample


@entry(
    "policies.diffusion:consistency",
    tags=("diffusion", "flow", "consistency"),
    source="Song et al. 2023, arXiv:2303.01469, algorithm 1; Luo et al. 2023 (LCM), arXiv:2310.04378; as a policy: "
    "Oertell et al. 2024 (RLCM), arXiv:2404.03673, section 4",
)
@dataclass(frozen=True)
class Consistency:
    """A process whose step jumps to the data and noises them again to the next, lower level.

    With ``f`` the data that the network says a state is made of, and ``x = a clean + b noise`` at each time::

        x' = a' f(x, t) + b' z          the last: x' = f(x, t) + last z

    In the coordinates ``x / a`` of Song et al. this is ``f + sqrt(tau'^2 - eps^2) z``. Their last jump adds no noise;
    here, as in RLCM, it does, so that it has a density and is trained. ``eta`` is 1: other noise is another model.

    Args:
        base: the process that the network was trained for; its ``f`` is the data at noise 0 by itself.
        top: the time of the first jump. At ``a`` near 0 an ``epsilon`` network says nothing of the data: 1 for a flow.
        last: noise of the last jump, in units of the data.

    >>> from rewardkit.policies.diffusion import Flow
    >>> Consistency(Flow(), top=1.0).times(4).tolist()
    [1.0, 0.75, 0.5, 0.25]
    """

    base: Process
    top: float
    last: float = 0.03

    def __post_init__(self) -> None:
        if self.last <= 0:
            raise ValueError(f"Consistency.last must be above 0, not {self.last}: without noise a jump has no density")

    def times(self, steps: int) -> Tensor:
        return self.base.path(torch.tensor([self.top]), steps)[0, 1:].flip(0).float()

    def step(self, x: Tensor, output: Tensor, i: Tensor, steps: int, eta: float) -> tuple[Tensor, Tensor]:
        if eta != 1:
            raise ValueError(f"a consistency model is sampled with eta=1, not {eta}")
        down = self.base.path(torch.tensor([self.top]), steps)[0].flip(0).to(x.device)
        a, b = self.base.scales(down[i + 1])
        clean, _ = self.parts(x, output, down[i])
        return like(a, x) * clean, like(b.clamp(min=self.last), x)

    def draw_times(self, n: int, generator: torch.Generator | None) -> Tensor:
        return self.base.draw_times(n, generator)

    def noised(self, clean: Tensor, noise: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        return self.base.noised(clean, noise, time)

    def parts(self, x: Tensor, output: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        return self.base.parts(x, output, time)

    def scales(self, time: Tensor) -> tuple[Tensor, Tensor]:
        return self.base.scales(time)

    def path(self, time: Tensor, steps: int) -> Tensor:
        return self.base.path(time, steps)

    def ode(self, now: Tensor, then: Tensor) -> tuple[Tensor, Tensor]:
        return self.base.ode(now, then)


@entry(
    "objectives.diffusion:consistency_distillation",
    tags=("diffusion", "flow", "consistency", "distillation"),
    source="Song et al. 2023, arXiv:2303.01469, algorithm 2",
)
@dataclass(frozen=True)
class Distilled:
    """Rows on which ``sft`` makes a student give one answer along each path of a teacher's sampler.

    An output is noised to a time of the grid; the teacher leads it one deterministic step down; what the target view of
    the student says of that state is the answer that the student must give at the first one::

        clean' = f_target(teacher's step(x_t), t - 1),    f(x, 0) = x

    The row's log-prob is minus half the squared error of the network's own quantity (noise, or velocity); for a flow
    this is Song's squared distance of the answers divided by ``t**2``.

    Args:
        student: a :func:`consistency_model`, of process :class:`Consistency`; its view ``target`` gives the answers, a
            moving average of its weights that :func:`follow` keeps. teacher: the policy that is distilled, of the same
            network and base process.
        steps: of the teacher's grid. draws: times an output.

    >>> from rewardkit.policies.diffusion import Flow, PointNet
    >>> teacher = DiffusionPolicy(PointNet(2, width=8, depth=1), Flow(), (2,))
    >>> student = consistency_model(teacher, top=1.0)
    >>> rows = Distilled(student, teacher, steps=8)([Sample(None, torch.ones(2))], torch.Generator().manual_seed(0))
    >>> rows.mask.shape, rows.inputs["clean"].requires_grad
    (torch.Size([4, 1]), False)
    """

    student: DiffusionPolicy
    teacher: DiffusionPolicy
    steps: int = 20
    draws: int = 4
    target: str = "target"

    @torch.no_grad()
    def __call__(self, samples: Sequence[Sample], generator: torch.Generator | None = None) -> Rollout:
        """``draws`` rows of one position for each sample.

        Raises:
            ValueError: for a student that is no consistency model.
        """
        process = self.student.process
        if not isinstance(process, Consistency):
            raise ValueError(f"the student's process must be Consistency, not {type(process).__name__}")
        rows = [s for s in samples for _ in range(self.draws)]
        given = self.student.encode(rows).inputs
        clean, condition = given["clean"], from_inputs(given)
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        place = torch.randint(self.steps, (len(rows),), generator=generator).to(clean.device)
        grid = process.path(torch.tensor([process.top]), self.steps)[0].to(clean.device)
        now, then = grid[place + 1], grid[place]
        x, _ = process.noised(clean, noise, now)
        a, b = process.ode(now, then)
        lower = like(a, x) * x + like(b, x) * self.teacher.call(self.teacher.module, x, now, condition)
        target = self.student.at(self.target)
        answer, _ = process.parts(lower, target.call(target.module, lower, then.clamp(min=0), condition), then)
        answer = torch.where(like(place, x) == 0, lower, answer)  # the data are their own answer
        a, b = process.scales(now)
        implied = (x - like(a, x) * answer) / like(b, x)
        inputs = {"clean": answer, "times": now[:, None], "noise": implied[:, None]} | to_inputs(condition)
        return Rollout(rows, torch.ones(len(rows), 1, device=clean.device), inputs=inputs)


def consistency_model(teacher: DiffusionPolicy, *, top: float, last: float = 0.03) -> DiffusionPolicy:
    """A copy of a policy, to be distilled into a consistency model; its view ``target`` is kept.

    >>> from rewardkit.policies.diffusion import Denoise, Flow, PointNet
    >>> student = consistency_model(DiffusionPolicy(PointNet(2, width=8, depth=1), Flow(), (2,)), top=1.0)
    >>> student.sample([None], 1, sampling=Denoise(2), seed=0).mask.tolist()
    [[1.0, 1.0]]
    """
    student = copy.copy(teacher)
    student.module = copy.deepcopy(teacher.module).requires_grad_(True)
    student.process = Consistency(teacher.process, top, last)
    student.keep_views()
    student.keep("target")
    return student


def follow(policy: Any, rate: float, view: str = "target") -> None:
    """Move a kept view's weights by ``rate`` of the way to the live ones; after each update: a moving average."""
    write(policy.at(view), ema(read(policy.at(view)), read(policy), rate))
