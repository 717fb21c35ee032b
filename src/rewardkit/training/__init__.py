"""The learner: optimisation, checkpoints, tracking."""
