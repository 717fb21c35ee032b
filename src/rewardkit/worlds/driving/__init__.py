"""World ``driving``: a curved lane with other cars and traffic lights, stepped as one array."""

from rewardkit.worlds.driving.envs import LaneEnvs, LaneTrack
from rewardkit.worlds.driving.pictures import tracks
from rewardkit.worlds.driving.scores import additive, driving_score, simple, subtracted
from rewardkit.worlds.driving.world import Driving

__all__ = ["Driving", "LaneEnvs", "LaneTrack", "additive", "driving_score", "simple", "subtracted", "tracks"]
