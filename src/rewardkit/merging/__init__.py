"""Weight space: pure functions on states, ``{name of a tensor: tensor}``, of models with one start."""

from rewardkit.merging.linear import ema, lerp, towards_init, uniform_soup
from rewardkit.merging.spherical import slerp, warp
from rewardkit.merging.states import State, same_names

__all__ = ["State", "ema", "lerp", "same_names", "slerp", "towards_init", "uniform_soup", "warp"]
