"""Embedded testbeds with a gold reward."""
