"""Episodes drawn on their tracks, for people."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rewardkit.types import Sample
from rewardkit.worlds.driving.physics import COLUMN, LANE, ROUTE, Scene, curvature


def centre_line(scene: Scene, seed: int, *, points: int = 481) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``s``, positions ``[points, 2]`` and headings of a lane's middle, from the start to the end of the route."""
    s = np.linspace(0, ROUTE, points)
    bends = np.repeat(scene.start(np.array([seed])).bends, points, 0)
    heading = np.concatenate([[0.0], np.cumsum(curvature(scene, bends, s)[:-1] * np.diff(s))])
    steps = np.diff(s)[:, None] * np.stack([np.cos(heading), np.sin(heading)], -1)[:-1]
    return s, np.concatenate([np.zeros((1, 2)), np.cumsum(steps, 0)]), heading


def tracks(samples: Sequence[Sample], *, scene: Scene | None = None, title: str = "") -> str:
    """Whole episodes as paths over their lanes, one above the other, coloured by speed; a cross is a bad end.

    Args:
        samples: whose outputs are trajectories and whose prompts are the seeds of their episodes.
    """
    from rewardkit.evals.report.charts import drawing

    where = scene or Scene()
    with drawing(len(samples), 1, 9.0, 1.4 * len(samples)) as (_, axes, out):
        for i, (sample, axis) in enumerate(zip(samples, np.atleast_1d(axes).flat, strict=True)):
            s, middle, heading = centre_line(where, int(sample.prompt))
            left = np.stack([-np.sin(heading), np.cos(heading)], -1)
            for side in (-LANE - 0.5, LANE + 0.5):
                axis.plot(*(middle + side * left).T, color="#999999", lw=0.8)
            seen = sample.output.observations
            along = np.concatenate([[0.0], np.cumsum(seen[1:, COLUMN["progress"]]) * ROUTE / 100])
            at = np.searchsorted(s, along).clip(0, len(s) - 1)
            path = middle[at] + 2 * seen[:, COLUMN["offset"], None] * left[at]
            axis.scatter(*path.T, c=seen[:, COLUMN["speed"]], s=5, cmap="viridis", vmin=0, vmax=1.2)
            for light in where.start(np.array([int(sample.prompt)])).lights[0]:
                here = np.searchsorted(s, light).clip(0, len(s) - 1)
                ends = np.stack([middle[here] - 2 * left[here], middle[here] + 2 * left[here]])
                axis.plot(*ends.T, color="#b3312a", lw=1.5)
            if sample.ended == "done":
                axis.plot(*path[-1], marker="x", color="#b3312a", ms=8)
            axis.set_aspect("equal")
            axis.set_axis_off()
            axis.set_title(f"{title if i == 0 else ''} {along[-1] / ROUTE:.0%} in {len(sample.output)} steps".strip())
    return out[0]
