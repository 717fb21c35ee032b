"""One short file a work."""
