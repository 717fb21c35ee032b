"""From judgements to training data."""
