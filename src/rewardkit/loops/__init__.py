"""Loops are iterators over shared parts."""
