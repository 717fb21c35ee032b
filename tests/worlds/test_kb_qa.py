"""World kb_qa: families, the retriever's rates, and a base reader that is right at times."""

from __future__ import annotations

import numpy as np
import pytest

from rewardkit.worlds.kb_qa import FOUND, WORDINGS, KnowledgeQA

WORLD = KnowledgeQA()


def test_the_retriever_finds_the_right_document_as_often_as_it_says():
    rng = np.random.default_rng(0)
    for wording, rate in enumerate(FOUND):
        found = [WORLD.retrieve("Bx", wording, rng) for _ in range(400)]
        assert np.mean(["Bx" in f for f in found]) == pytest.approx(rate, abs=4 * 0.5 / 20)
        assert all(len(set(f)) == WORLD.documents for f in found)


def test_a_family_asks_for_one_fact_in_every_wording():
    asked = WORLD.questions(3, seed=1)
    assert len(asked) == 3 * len(WORDINGS)
    for i in range(3):
        rows = asked[4 * i : 4 * i + 4]
        assert {s.hidden["family"] for s in rows} == {rows[0].hidden["family"]}
        assert len({s.source for s in rows}) == len(WORDINGS)


def test_equal_documents_where_the_reader_alone_is_looked_at():
    rows = WORLD.questions(1, seed=2, same=True)
    assert len({s.hidden["found"] for s in rows}) == 1


def test_agreement_is_between_wordings_only():
    sure = [w for w in "abcd" for _ in range(2)]
    assert WORLD._agreement(sure, 2) == 0.0
    assert WORLD._agreement(["a"] * 8, 2) == 1.0


def test_what_is_measured(cache):
    found = WORLD.measure(WORLD.base_policy(steps=1), n=2, draws=1)
    assert set(found) == {"gold", "consistency", "reader", "retriever", "distinct", "kl"}
