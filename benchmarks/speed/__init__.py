"""Ours and TRL's trainers side by side: the same weights, token ids, optimiser and threads, in one process each."""
