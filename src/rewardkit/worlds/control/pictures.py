"""What a camera sees, and paths drawn for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rewardkit.types import Sample
from rewardkit.worlds.control.physics import HAZARD, NEAR, TASKS

SIZE = 32
COLOURS = {"point": (0.1, 0.2, 0.9), "goal": (0.1, 0.7, 0.2), "hazard": (0.95, 0.55, 0.5)}
PAPER = (1.0, 1.0, 1.0)


def frames(observations: Tensor, *, background: Tensor | None = None, size: int = SIZE) -> Tensor:
    """Pictures in [0, 1] with soft edges, so that gradients reach the positions: ``[N, 6] -> [N, 3, size, size]``.

    Args:
        background: colour ``[3]`` or ``[N, 3]``, white by default.

    >>> frames(torch.zeros(2, 6)).shape
    torch.Size([2, 3, 32, 32])
    """
    centres = torch.linspace(-1 + 1 / size, 1 - 1 / size, size, device=observations.device)
    y, x = torch.meshgrid(-centres, centres, indexing="ij")
    paper = torch.tensor(PAPER) if background is None else background
    picture = paper.to(observations).expand(len(observations), 3)[:, :, None, None].expand(-1, -1, size, size)
    middle = torch.zeros_like(observations[:, 0:2])
    discs = (("hazard", middle, HAZARD), ("goal", observations[:, 4:6], NEAR), ("point", observations[:, 0:2], 0.1))
    for name, at, radius in discs:
        away = ((x - at[:, 0, None, None]).square() + (y - at[:, 1, None, None]).square()).clamp(min=1e-12).sqrt()
        cover = torch.sigmoid((radius - away) * size / 1.5)[:, None]
        picture = picture + cover * (torch.tensor(COLOURS[name]).to(picture)[:, None, None] - picture)
    return picture


def trajectories(name: str, samples: Sequence[Sample], tasks: Sequence[str] = tuple(TASKS)) -> str:
    """Paths of episodes as a picture, one square a task.

    Args:
        samples: whose outputs are trajectories and whose prompts are the seeds of their episodes.
    """
    from rewardkit.evals.report.charts import drawing
    from rewardkit.worlds.control.physics import task_of

    with drawing(1, len(tasks), 3.1 * len(tasks), 3.3) as (_, axes, out):
        for task, axis in zip(tasks, _flat(axes), strict=True):
            own = [s for s in samples if task_of(int(s.prompt)) == task]
            axis.add_patch(_disc(0.0, 0.0, HAZARD, "#f0b4ae"))
            for s in own:
                path = s.output.observations
                axis.plot(path[:, 0], path[:, 1], color="#3867d6", lw=0.8, alpha=0.6)
                axis.plot(*path[0, 0:2], marker="o", ms=2.5, color="#3867d6")
                axis.add_patch(_disc(path[0, 4], path[0, 5], NEAR, "#20876b"))
            axis.set_xlim(-1.05, 1.05)
            axis.set_ylim(-1.05, 1.05)
            axis.set_aspect("equal")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_title(f"{name}: {task}")
    return out[0]


def film(name: str, sample: Sample, *, shots: int = 8) -> str:
    """An episode as a camera sees it, ``shots`` frames in a row."""
    from rewardkit.evals.report.charts import drawing

    seen = torch.from_numpy(sample.output.observations)
    at = torch.linspace(0, len(seen) - 1, shots).round().long()
    with drawing(1, shots, 1.15 * shots, 1.7) as (figure, axes, out):
        figure.suptitle(name, x=0.01, ha="left", weight="bold")
        for t, picture, axis in zip(at.tolist(), frames(seen[at]), _flat(axes), strict=True):
            axis.imshow(picture.permute(1, 2, 0).numpy(), interpolation="nearest")
            axis.set_axis_off()
            axis.set_title(f"step {t}")
    return out[0]


def _flat(axes: Any) -> list[Any]:
    return list(axes.flat) if hasattr(axes, "flat") else [axes]


def _disc(x: float, y: float, radius: float, colour: str) -> Any:
    from matplotlib.patches import Circle

    return Circle((x, y), radius, color=colour, lw=0, alpha=0.6)
