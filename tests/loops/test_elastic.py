"""Elastic reset: two resets, the ends of the decay, the optimiser kept."""

from __future__ import annotations

import pytest
import torch

from rewardkit.credit.group import rloo
from rewardkit.loops import online
from rewardkit.loops.elastic import ElasticReset
from rewardkit.loops.prompts import PromptSet
from rewardkit.objectives.policy import reinforce
from rewardkit.policies.table import TablePolicy
from rewardkit.training import Learner


def likes_b(completions, **_):
    return [float(c == "b") for c in completions]


def run(steps: int = 12, **options) -> list[float]:
    """The advantage of ``b``'s logit after every turn."""
    policy = TablePolicy(["x"], ["a", "b"])
    learner = Learner(policy, lr=0.3)
    reset, seen = ElasticReset(learner, **options) if options else None, []
    for turn in online(learner, PromptSet(["x"]), likes_b, rloo, reinforce, reference=None, steps=steps, batch=1, n=16):
        if reset is not None:
            reset.after(turn.step)
        seen.append(policy.logits[0, 0].diff().item())
    return seen


def test_with_a_decay_of_0_nothing_is_reset() -> None:
    assert run(every=4, decay=0.0) == run()


def test_with_a_decay_of_1_it_is_a_hard_reset() -> None:
    found = run(every=4, decay=1.0)
    assert found[3] == found[7] == 0.0
    assert found[2] > 1.0


def test_it_falls_back_to_the_average_and_not_to_the_start() -> None:
    free, found = run(), run(every=4, decay=0.8)
    weights = [0.2 * 0.8**k for k in (3, 2, 1, 0)]
    assert found[:3] == free[:3]
    assert found[3] == pytest.approx(sum(w * x for w, x in zip(weights, free[:4], strict=True)), rel=1e-5)


def test_the_second_reset_draws_the_next_one_back() -> None:
    """Without it the average goes on from where it was, and the policy drifts further."""
    with_it, without = (run(every=4, decay=0.8, second=s) for s in (True, False))
    assert with_it[:4] == without[:4]
    assert with_it[7] < without[7] - 0.3


def test_the_optimiser_is_kept() -> None:
    policy = TablePolicy(["x"], ["a", "b"])
    learner = Learner(policy, lr=0.3)
    reset = ElasticReset(learner, every=1, decay=0.5)
    for turn in online(learner, PromptSet(["x"]), likes_b, rloo, reinforce, reference=None, steps=2, batch=1):
        reset.after(turn.step)
    moments = learner.optimizer.state[policy.module.logits]
    assert moments["step"] == 2
    assert bool(torch.as_tensor(moments["exp_avg"]).any())


def test_bad_options_are_refused() -> None:
    for options in ({"every": 0, "decay": 0.5}, {"every": 1, "decay": 1.5}):
        with pytest.raises(ValueError, match="needs every >= 1"):
            ElasticReset(Learner(TablePolicy(["x"], ["a"])), **options)
