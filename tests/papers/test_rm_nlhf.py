"""A MetaRM has no critiques beyond the share that its arm says."""

from __future__ import annotations

import pytest

from rewardkit.papers.recipe import Run
from rewardkit.papers.recipes import rm_nlhf
from rewardkit.worlds.critics import Critics


@pytest.mark.parametrize("online", [False, True])
def test_the_model_is_fitted_to_the_annotated_pairs_alone(monkeypatch, cache, online):
    fitted = []
    monkeypatch.setattr(rm_nlhf, "fit", lambda learner, data, *_, **__: fitted.append(data) or [])
    pairs = Critics(annotated=0.2).pairs(16, 20_000)
    made = rm_nlhf.meta(Run(0, smoke=True), Critics().base_policy(steps=1), pairs, online=online)
    known = {p.prompt for p in pairs if "critique" in p.hidden}
    assert 0 < len(known) < len(pairs)
    assert {s.prompt for s in fitted[0].samples} == known
    assert made.every == (2 if online else None)
