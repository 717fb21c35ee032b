"""Losses: pure, unreduced, called by name."""
