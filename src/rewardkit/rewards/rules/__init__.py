"""Rewards that a rule decides, without a model."""

from rewardkit.rewards.rules.text import ExactMatch, Length

__all__ = ["ExactMatch", "Length"]
