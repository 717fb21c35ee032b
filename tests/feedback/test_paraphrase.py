"""Wordings of one question are one family and keep the user's own words."""

from __future__ import annotations

from rewardkit.feedback.paraphrase import paraphrased
from rewardkit.types import Sample


def test_every_wording_knows_its_question():
    asked = Sample("rewritten", source="what the user said", hidden={"answer": "4"})
    found = paraphrased(asked, [str.upper, str.title], family=7)
    assert [s.prompt for s in found] == ["REWRITTEN", "Rewritten"]
    assert {s.asked for s in found} == {"what the user said"}
    assert all(s.hidden == {"answer": "4", "family": 7} for s in found)
