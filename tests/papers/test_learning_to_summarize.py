"""The over-optimisation figures of ``learning_to_summarize`` show what is there, and noise shows nothing."""

from __future__ import annotations

import torch

from rewardkit.papers.recipe import judge
from rewardkit.papers.recipes.learning_to_summarize import RECIPE, WIDTH, rise_and_fall

ARMS = ("long run, 2,000 comparisons", "long run, 200 comparisons")
EXPECTED = [e for e in RECIPE.expectations if e.arm in ARMS]


def run(gold, generator, turns=100, replies=96, spread=2.0):
    """Figures of one run with gold of mean ``gold [turns]``; a reply's luck (``spread``) is in its proxy too."""
    luck = spread * torch.randn(turns, replies, generator=generator)
    kl = torch.linspace(0, 8, turns)[:, None] + torch.randn(turns, replies, generator=generator)
    return rise_and_fall(torch.stack([kl, gold[:, None] + luck, gold[:, None] + 0.8 * luck]), WIDTH)


def verdicts(golds, generator):
    found = {arm: {seed: run(gold, generator) for seed in range(3)} for arm, gold in zip(ARMS, golds, strict=True)}
    return {e.claim: judge(e, found).verdict for e in EXPECTED}


def test_a_gold_that_stays_flat_is_shown_to_rise_or_fall_in_less_than_one_run_in_twenty():
    generator = torch.Generator().manual_seed(0)
    flat = torch.zeros(100)
    found = [verdicts((flat, flat), generator) for _ in range(120)]
    assert len(EXPECTED) == 4
    for e in EXPECTED:
        assert sum(v[e.claim] == "shown" for v in found) < 6, e.claim


def test_a_real_rise_and_fall_is_shown():
    early, late = (torch.cat([torch.linspace(0, 1.5, k), torch.linspace(1.5, 0, 100 - k)]) for k in (30, 70))
    found = verdicts((late, early), torch.Generator().manual_seed(0))
    assert {e.claim for e in EXPECTED if found[e.claim] != "shown"} == {"meanwhile the proxy still rises"}  # it fell


def test_a_run_without_a_fall_has_no_place_of_its_peak():
    found = run(torch.linspace(0, 2, 100), torch.Generator().manual_seed(0))
    assert found["rise"] > 1
    assert found["kl_at_peak"] != found["kl_at_peak"]
    assert found["proxy_after_peak"] != found["proxy_after_peak"]
