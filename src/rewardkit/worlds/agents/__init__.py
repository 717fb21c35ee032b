"""World ``agents``: questions of several hops over a knowledge base, with a tool to look things up."""

from rewardkit.worlds.agents.world import Agents

__all__ = ["Agents"]
