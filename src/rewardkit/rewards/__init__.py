"""Rewards: protocol, operators, adapters."""
