"""Self-steering optimisation is a comparison and a steering term beside it."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from rewardkit.feedback.contrast import principle_contrast_pairs
from rewardkit.loops import rounds
from rewardkit.objectives.preference import dpo
from rewardkit.policies.table import TablePolicy
from rewardkit.training import Learner
from rewardkit.training.reference import attach_reference
from rewardkit.training.steering import sso
from rewardkit.types import Rollout


def good(prompt: str) -> str:
    return f"+{prompt}"


def bad(prompt: str) -> str:
    return f"-{prompt}"


def steered() -> TablePolicy:
    """Unasked it is undecided; the good principle makes it lean to ``b``, the bad one to ``a``."""
    logits = torch.tensor([[[0.0, 0.0]], [[-1.0, 1.0]], [[1.0, -1.0]]])
    return TablePolicy(["x", "+x", "-x"], ["a", "b"], logits=logits)


def collect(policy: TablePolicy, number: int) -> Rollout:
    return principle_contrast_pairs(policy, ["x"] * 64, good, bad, seed=number)


def test_the_sum_of_terms_is_the_published_loss() -> None:
    policy = steered()
    rows = attach_reference(collect(policy, 0), policy.at("start"))
    terms = sso(rows, base=partial(dpo, beta=0.5), steer=0.2)
    found = Learner(policy, lr=1e-9).step(*terms)
    assert found["loss"] == pytest.approx(found["dpo/loss"] + 0.2 * found["steering/loss"])
    # Policy and reference are equal: every pair costs log 2.
    assert found["dpo/loss"] == pytest.approx(0.6931, abs=1e-4)
    assert found["steering/steer"] == pytest.approx(2 * 0.6931, abs=1e-4)


def test_the_principle_is_not_in_the_prompt_of_the_comparison() -> None:
    policy = steered()
    rows = attach_reference(collect(policy, 0), policy.at("start"))
    plain, every = sso(rows)
    assert {s.prompt for s in plain.data.samples} == {"x"}
    assert {s.prompt for s in every.data.samples} == {"x", "+x", "-x"}


def test_it_learns_the_good_side_and_keeps_both_principles_apart() -> None:
    """The bare question moves to what the good principle writes; under the bad one the policy still writes ``a``."""
    policy = steered()
    learner = Learner(policy, lr=0.05, clip=None)
    terms = partial(sso, base=partial(dpo, beta=0.5), steer=1.0)
    for _ in rounds(learner, collect, terms=terms, reference="start", rounds=4, epochs=2, batch=16):
        pass
    b = {p: policy.enumerate(p)[1][1].item() for p in policy.prompts}
    assert b["x"] > 0.7
    assert b["+x"] > 0.9
    assert b["-x"] < 0.1
