"""Generators with a time axis."""
