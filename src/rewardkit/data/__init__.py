"""Readers and writers of the standard columns."""
