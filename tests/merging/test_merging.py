"""Merging: exact ends, lengths, task vectors and not weights, the way back into a policy."""

from __future__ import annotations

import math

import pytest
import torch

from rewardkit.credit.group import rloo
from rewardkit.loops import online
from rewardkit.loops.prompts import PromptSet
from rewardkit.merging import ema, lerp, slerp, towards_init, uniform_soup, warp
from rewardkit.objectives.policy import reinforce
from rewardkit.policies.table import TablePolicy
from rewardkit.policies.weights import read, write
from rewardkit.training import Learner

State = dict[str, torch.Tensor]


def state(seed: int, norm: float | None = None) -> State:
    """Two layers and a counter; each layer of the norm asked for."""
    chance = torch.Generator().manual_seed(seed)
    layers = {n: torch.randn(*shape, generator=chance) for n, shape in {"in": (4, 3), "out": (5,)}.items()}
    if norm is not None:
        layers = {n: norm * x / x.norm() for n, x in layers.items()}
    return layers | {"count": torch.tensor(seed)}


def plus(a: State, b: State) -> State:
    return {n: x + b[n] if x.is_floating_point() else x for n, x in a.items()}


def zeros() -> State:
    return {n: torch.zeros_like(x) for n, x in state(0).items()}


def equal(a: State, b: State, tolerance: float = 0.0) -> bool:
    return all(torch.allclose(a[n], b[n], atol=tolerance, rtol=0) for n in ("in", "out"))


@pytest.mark.parametrize("w", [0.1, 0.5, 0.8])
def test_slerp_keeps_the_length_of_ways_of_equal_length_in_every_layer(w: float) -> None:
    start, a, b = state(0), state(1, 2.0), state(2, 2.0)
    found = slerp(start, plus(start, a), plus(start, b), w)
    mean = lerp(plus(start, a), plus(start, b), w)
    for layer in ("in", "out"):
        assert (found[layer] - start[layer]).norm().item() == pytest.approx(2.0, rel=1e-5)
        assert (mean[layer] - start[layer]).norm().item() < 1.98


def test_slerp_turns_by_its_share_of_the_angle() -> None:
    x, y = ({"a": torch.tensor(v, dtype=torch.double)} for v in ([3.0, 0.0], [0.0, 3.0]))
    found = slerp({"a": torch.zeros(2, dtype=torch.double)}, x, y, 1 / 3)["a"]
    assert found.tolist() == pytest.approx([3 * math.cos(math.pi / 6), 3 * math.sin(math.pi / 6)])


def test_slerp_is_of_task_vectors_and_not_of_weights() -> None:
    """Moving the start and both runs by the same vector moves the result by it; the arc of the weights would not."""
    start, a, b, shift = zeros(), state(1), state(2), state(3)
    here = slerp(start, a, b, 0.5)
    there = slerp(plus(start, shift), plus(a, shift), plus(b, shift), 0.5)
    assert equal(there, plus(here, shift), 1e-5)
    of_weights = slerp(zeros(), plus(a, shift), plus(b, shift), 0.5)
    assert not equal(of_weights, there, 0.05)


def test_ends_are_exact() -> None:
    start, a, b = state(0), state(1), state(2)
    assert equal(slerp(start, a, b, 0), a)
    assert equal(slerp(start, a, b, 1), b)
    assert equal(lerp(a, b, 0), a)
    assert equal(lerp(a, b, 1), b)
    assert equal(towards_init(start, a, 0), start)
    assert equal(towards_init(start, a, 1), a)
    assert equal(ema(a, b, 0), a)
    assert equal(ema(a, b, 1), b)


@pytest.mark.parametrize("second", ["same", "opposite", "start"])
def test_slerp_without_an_angle_is_the_straight_line(second: str) -> None:
    start, a = zeros(), state(1)
    b = {"same": a, "opposite": {n: -x for n, x in a.items()}, "start": start}[second]
    assert equal(slerp(start, a, b, 0.25), lerp(a, b, 0.25), 1e-6)


def test_warp_merges_all_runs_evenly_and_goes_back() -> None:
    """Three perpendicular ways of length 1: the arc's middle has length 1, and an even share of each."""
    start = {"a": torch.zeros(3, dtype=torch.double)}
    runs = [{"a": row} for row in torch.eye(3, dtype=torch.double)]
    assert warp(start, runs[:2], 1.0)["a"].tolist() == pytest.approx([0.5**0.5, 0.5**0.5, 0])
    third = warp(start, runs, 1.0)["a"]
    assert third.norm().item() == pytest.approx(1.0)
    assert third.tolist() == pytest.approx([math.cos(math.pi / 6) / 2**0.5] * 2 + [0.5])
    assert warp(start, runs, 0.3)["a"].norm().item() == pytest.approx(0.3)


def test_a_soup_is_the_mean_and_counters_are_the_firsts() -> None:
    a, b, c = state(1), state(2), state(3)
    found = uniform_soup([a, b, c])
    assert torch.allclose(found["in"], (a["in"] + b["in"] + c["in"]) / 3)
    assert found["count"].item() == 1
    found["in"].zero_()
    assert a["in"].any()


def test_states_of_different_models_are_named() -> None:
    with pytest.raises(ValueError, match=r"different parameters: .*'out'"):
        lerp(state(0), {"in": state(0)["in"], "count": torch.tensor(0)}, 0.5)
    with pytest.raises(ValueError, match=r"different shapes: \['in'\]"):
        slerp(state(0), state(1), state(2) | {"in": torch.zeros(3, 4)}, 0.5)
    with pytest.raises(ValueError, match="at least one"):
        warp(state(0), [], 0.5)


def test_a_merged_state_gets_into_a_learner_and_into_a_view() -> None:
    policy = TablePolicy(["x"], ["a", "b"])
    learner, view = Learner(policy, lr=0.1), policy.keep("mean")
    other = {"logits": torch.tensor([[[0.0, 4.0]]])}
    learner.load(lerp(read(policy), other, 0.5), optimizer="reset")
    assert policy.logits.tolist() == [[[0.0, 2.0]]]
    before = view.version
    write(view, other)
    assert view.version != before
    assert policy.logits.tolist() == [[[0.0, 2.0]]]
    assert not view.logits.requires_grad
    assert policy.logits.requires_grad


def test_a_view_that_the_for_body_moves_is_the_reference_of_the_next_turn() -> None:
    """The anchor of turn t is the average after turn t - 1; the first policy's log-probs stay what they were."""
    policy = TablePolicy(["x"], ["a", "b"])
    anchor, expected = policy.keep("ema"), torch.zeros(1, 1, 2)
    learner = Learner(policy, lr=0.3)

    def likes_b(completions, **_):
        return [float(c == "b") for c in completions]

    for turn in online(
        learner, PromptSet(["x"]), likes_b, rloo, reinforce, reference=anchor, kl=0.1, steps=5, batch=1, n=16
    ):
        actions = turn.rollout.inputs["actions"]
        wanted = expected[0, 0].log_softmax(-1)[actions]
        assert torch.allclose(turn.rollout["ref_logps"], wanted, atol=1e-6)
        assert torch.allclose(turn.rollout["start_logps"], torch.full_like(wanted, math.log(0.5)))
        expected = 0.5 * expected + 0.5 * policy.logits.detach()
        write(anchor, ema(read(anchor), read(policy), 0.5))
    assert anchor.logits.detach()[0, 0].diff().item() > 0.3
