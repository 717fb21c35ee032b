"""Rewards: operators, plain functions, compositions in YAML, rules, learned scorers."""

from rewardkit.rewards.base import Constant, Named, RewardBase, describe
from rewardkit.rewards.function import FunctionReward, function_reward
from rewardkit.rewards.load import load_reward
from rewardkit.rewards.ops import ensemble, gate
from rewardkit.rewards.pool import in_processes

__all__ = [
    "Constant",
    "FunctionReward",
    "Named",
    "RewardBase",
    "describe",
    "ensemble",
    "function_reward",
    "gate",
    "in_processes",
    "load_reward",
]
