"""World ``control``: a point with inertia that must reach a goal and keep off a hazard."""

from rewardkit.worlds.control.envs import PointEnvs, PointReach
from rewardkit.worlds.control.pictures import film, frames, trajectories
from rewardkit.worlds.control.world import Control

__all__ = ["Control", "PointEnvs", "PointReach", "film", "frames", "trajectories"]
