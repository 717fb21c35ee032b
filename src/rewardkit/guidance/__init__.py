"""Steering without changing weights."""
