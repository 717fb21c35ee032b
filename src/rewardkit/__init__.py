"""Learning from rewards: one system from feedback to reward, policy and honest report."""

__version__ = "0.1.0"
