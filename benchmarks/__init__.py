"""Side-by-side speed and memory against peers."""
