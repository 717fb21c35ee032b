"""The form in which comparisons are kept: judgements, with their annotator, strength and weight."""

from __future__ import annotations

from rewardkit.data.rows import comparison_rows
from rewardkit.registry import Entry

REGISTRY_POINTS = (
    Entry(
        "feedback:pairwise_schema",
        comparison_rows,
        tags=("pairs",),
        source="Stiennon et al. 2020, arXiv:2009.01325, appendix C",
    ),
)
"""Comparisons are :class:`rewardkit.types.Judgement` s; this is how they become rows for an objective."""
