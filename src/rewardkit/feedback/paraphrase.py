"""One question in several wordings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rewardkit.registry import entry
from rewardkit.types import Sample


@entry(
    "feedback:paraphrase",
    aliases=("instruction_paraphrase", "question_rephrasing"),
    tags=("synthesis", "family"),
    source="Con-RAG, arXiv:2510.04392, section 3: paraphrases of a canonical query",
)
def paraphrased(sample: Sample, wordings: Sequence[Callable[[str], str]], family: Any = None) -> list[Sample]:
    """The question of a sample in each wording, as one family: templates, or a policy that rewrites.

    Args:
        sample: without output; its ``hidden`` goes with every wording. wordings: from the canonical text to another.
        family: what the wordings share as ``hidden["family"]``; default, the canonical text.

    >>> found = paraphrased(Sample("capital of Norway"), [str, "Tell me the {}.".format])
    >>> [s.prompt for s in found], {s.hidden["family"] for s in found}
    (['capital of Norway', 'Tell me the capital of Norway.'], {'capital of Norway'})
    """
    hidden = {**sample.hidden, "family": sample.prompt if family is None else family}
    return [Sample(wording(sample.prompt), source=sample.asked, hidden=hidden) for wording in wordings]
