"""Benchmarks and measures of trust."""
