"""The catalogue and one recipe a work."""
