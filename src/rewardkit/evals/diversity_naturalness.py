"""Whether made sequences look like natural ones, and like each other."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from rewardkit.registry import entry
from rewardkit.types import Measure


@entry(
    "evals:diversity_naturalness",
    tags=("bio", "text"),
    source="k-mer correlation: Wang et al. 2025 (DRAKES), arXiv:2410.13643, section 6.1",
)
def diversity_naturalness(
    made: Sequence[str], natural: Sequence[str], letters: str, *, k: int = 3
) -> dict[str, Measure]:
    """Figures of a set of sequences beside a set of natural ones.

    Args:
        made, natural: texts over ``letters``, at least two made ones. k: letters of a word.

    Returns:
        ``kmer_correlation``: Pearson correlation of the frequencies of all words of ``k`` letters, 1 where they are the
        same; ``diversity``: the share of positions in which two made sequences differ, a mean over all pairs (of equal
        length); ``distinct``: the share of made sequences that are different.

    >>> found = diversity_naturalness(["ACAC", "CACA"], ["ACACACA", "CACACAC"], "AC", k=2)
    >>> round(found["kmer_correlation"].value, 3), found["diversity"].value
    (1.0, 1.0)
    """
    if len(made) < 2:
        raise ValueError(f"diversity needs at least two sequences, not {len(made)}")
    both = torch.stack([kmer_frequencies(x, letters, k) for x in (made, natural)])
    return {
        "kmer_correlation": Measure(float(torch.corrcoef(both)[0, 1]), len(made)),
        "diversity": Measure(_hamming(made), len(made)),
        "distinct": Measure(len(set(made)) / len(made), len(made)),
    }


def kmer_frequencies(texts: Sequence[str], letters: str, k: int) -> Tensor:
    """The share of each word of ``k`` letters among all, float64 ``[letters ** k]``, words in the alphabet's order.

    >>> kmer_frequencies(["AAC"], "AC", 1).tolist()
    [0.6666666666666666, 0.3333333333333333]
    """
    counts = Counter(text[i : i + k] for text in texts for i in range(len(text) - k + 1))
    found = [counts["".join(word)] for word in itertools.product(letters, repeat=k)]
    return torch.tensor(found, dtype=torch.float64) / max(1, sum(found))


def _hamming(texts: Sequence[str]) -> float:
    """By counts of letters at each position: the mean over pairs without visiting them."""
    n, total, places = len(texts), 0.0, 0
    for column in itertools.zip_longest(*texts):
        counts = Counter(column)
        total += 1 - sum(c * (c - 1) for c in counts.values()) / (n * (n - 1))
        places += 1
    return total / places
