"""World ``shapes``: captioned pictures of coloured shapes."""

from rewardkit.worlds.shapes.clip import caption_scorer
from rewardkit.worlds.shapes.detect import Reading, read
from rewardkit.worlds.shapes.edits import Edit, Hole, edits, holes
from rewardkit.worlds.shapes.gold import Gold
from rewardkit.worlds.shapes.scene import Scene, captions
from rewardkit.worlds.shapes.world import Shapes

__all__ = ["Edit", "Gold", "Hole", "Reading", "Scene", "Shapes", "caption_scorer", "captions", "edits", "holes", "read"]
