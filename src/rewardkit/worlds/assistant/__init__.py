"""World ``assistant``: readable requests for advice, with a gold reward and simulated annotators."""

from rewardkit.worlds.assistant.annotators import TASTES, Person, Pool, Taste
from rewardkit.worlds.assistant.gold import Gold
from rewardkit.worlds.assistant.parse import wellformed
from rewardkit.worlds.assistant.world import AssistantWorld

__all__ = ["TASTES", "AssistantWorld", "Gold", "Person", "Pool", "Taste", "wellformed"]
