"""Gold is read off the best checkpoints, so every arm has as many of them."""

from __future__ import annotations

from rewardkit.papers.recipe import Run
from rewardkit.papers.recipes import aligndistil


def test_dpo_has_as_many_checkpoints_as_two_strengths_of_the_others(monkeypatch):
    monkeypatch.setattr(aligndistil, "_world", lambda run: (None, None))
    monkeypatch.setattr(aligndistil, "_pairs", lambda run: [])
    monkeypatch.setattr(aligndistil, "preference", lambda *_, **__: None)
    monkeypatch.setattr(aligndistil, "_reward", lambda run: None)
    monkeypatch.setattr(aligndistil, "point", lambda *_, **__: {})
    monkeypatch.setattr(aligndistil, "_figures", lambda run, runs: [p for _, points in runs for p in points])
    assert len(aligndistil.direct(Run(0))) == 2 * aligndistil.ROUNDS // aligndistil.EVERY
