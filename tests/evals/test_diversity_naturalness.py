"""Counts of words and shares of differing letters, by hand and by brute force."""

from __future__ import annotations

import itertools
import random

import pytest

from rewardkit.evals.diversity_naturalness import diversity_naturalness, kmer_frequencies


def test_words_are_counted_at_every_place() -> None:
    found = kmer_frequencies(["AACA", "CC"], "AC", 2)
    assert found.tolist() == [0.25, 0.25, 0.25, 0.25]


def test_diversity_is_the_mean_over_pairs() -> None:
    chance = random.Random(0)
    made = ["".join(chance.choices("ACGT", k=7)) for _ in range(12)] + ["AAAAAAA"] * 3
    found = diversity_naturalness(made, made, "ACGT")
    pairs = list(itertools.combinations(made, 2))
    by_hand = sum(sum(a != b for a, b in zip(x, y, strict=True)) / 7 for x, y in pairs) / len(pairs)
    assert found["diversity"].value == pytest.approx(by_hand)
    assert found["kmer_correlation"].value == pytest.approx(1.0)
    assert found["distinct"].value == pytest.approx(len(set(made)) / 15)


def test_other_words_correlate_less() -> None:
    made, natural = ["AAAAAAAA", "AAAAAAAC"], ["ACGTACGT", "CGTACGTA"]
    assert diversity_naturalness(made, natural, "ACGT")["kmer_correlation"].value < 0.1
    with pytest.raises(ValueError, match="at least two"):
        diversity_naturalness(["A"], natural, "ACGT")
