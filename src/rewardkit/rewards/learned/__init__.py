"""Rewards learned from feedback."""
