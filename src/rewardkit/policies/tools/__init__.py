"""Tools for language policies: plain functions with a docstring, and the game in which they are called."""

from rewardkit.policies.tools.calculator import calculate
from rewardkit.policies.tools.game import ToolGame
from rewardkit.policies.tools.search import Search

__all__ = ["Search", "ToolGame", "calculate"]
