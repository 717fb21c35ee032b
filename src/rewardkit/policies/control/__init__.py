"""Actors and critics for Gymnasium environments."""

from rewardkit.policies.control.critic import ControlCritic
from rewardkit.policies.control.envs import Envs
from rewardkit.policies.control.path import Unrolled
from rewardkit.policies.control.policy import ControlPolicy, Steps
from rewardkit.policies.control.q import ControlQ, q
from rewardkit.policies.control.squashed import Reparameterised, Temperature, log_alpha
from rewardkit.policies.control.transitions import transitions

__all__ = [
    "ControlCritic",
    "ControlPolicy",
    "ControlQ",
    "Envs",
    "Reparameterised",
    "Steps",
    "Temperature",
    "Unrolled",
    "log_alpha",
    "q",
    "transitions",
]
