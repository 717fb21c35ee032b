"""See :mod:`rewardkit.policies.path`."""

from rewardkit.policies.path import PathValue

__all__ = ["PathValue"]
