"""Actors and critics for Gymnasium environments."""

from rewardkit.policies.control.critic import ControlCritic
from rewardkit.policies.control.envs import Envs
from rewardkit.policies.control.policy import ControlPolicy, Steps

__all__ = ["ControlCritic", "ControlPolicy", "Envs", "Steps"]
