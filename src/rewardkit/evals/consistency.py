"""Whether a policy says the same to the same question, and whether it is right for the right reason."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from rewardkit.measures.intervals import mean_interval
from rewardkit.registry import entry
from rewardkit.types import Measure


@entry(
    "evals:rag_consistency",
    aliases=("paraphrase_consistency",),
    tags=("consistency", "retrieval"),
    source="Con-RAG, arXiv:2510.04392: end to end, of the retriever (document sets), of the generator (equal ones)",
)
def paraphrase_consistency(families: Sequence[Sequence[Sequence[Any]]]) -> Measure:
    """How often two outputs for different wordings of a question are equal.

    Args:
        families: for each question, for each of its wordings, the outputs: answers, or what a retriever found, in a
            form that can be compared. Give every wording the same documents to look at the generator alone.

    Returns:
        the mean over questions; ``invalid`` counts those with fewer than two wordings.

    >>> paraphrase_consistency([[["Oslo", "Rome"], ["Oslo"]], [["Bern"], ["Bern"]]]).value
    0.75
    """
    found = []
    for wordings in families:
        pairs = [a == b for u, v in itertools.combinations(wordings, 2) for a in u for b in v]
        if pairs:
            found.append(sum(pairs) / len(pairs))
    value = sum(found) / len(found) if found else float("nan")
    return Measure(value, len(found), ci=mean_interval(found), invalid=len(families) - len(found))


@entry(
    "evals:outcome_process_consistency",
    tags=("judge", "process"),
    source="RM-NLHF, arXiv:2601.07349: right labels with wrong critiques",
)
def outcome_process_inconsistency(right: Sequence[bool], sound: Sequence[bool]) -> Measure:
    """The share of right verdicts whose reasons are wrong.

    Args:
        right: whether each verdict's label is right. sound: whether its critique is.

    Returns:
        over right verdicts; ``invalid`` counts the wrong ones.

    >>> outcome_process_inconsistency([True, True, False], [True, False, True]).value
    0.5
    """
    kept = [float(not s) for r, s in zip(right, sound, strict=True) if r]
    value = sum(kept) / len(kept) if kept else float("nan")
    return Measure(value, len(kept), ci=mean_interval(kept), invalid=len(right) - len(kept))
