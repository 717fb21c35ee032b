"""Where code that a model wrote runs."""

from rewardkit.sandbox.expression import Expression, parse

__all__ = ["Expression", "parse"]
