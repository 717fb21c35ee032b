"""World ``moving_shapes``: edits and clips of motion, with exact optical flow."""

from rewardkit.worlds.moving_shapes.measure import Gold, Similarity, flow_reward, flows, see
from rewardkit.worlds.moving_shapes.scene import Move, Thing
from rewardkit.worlds.moving_shapes.world import MovingShapes, judged

__all__ = ["Gold", "Move", "MovingShapes", "Similarity", "Thing", "flow_reward", "flows", "judged", "see"]
