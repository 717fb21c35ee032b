"""Points in the plane: exact densities, KL and optimum."""

from rewardkit.worlds.gaussians.mixture import Mixture
from rewardkit.worlds.gaussians.world import Gaussians

__all__ = ["Gaussians", "Mixture"]
