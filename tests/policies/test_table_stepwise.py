"""A table one action at a time: the exact distribution, forks, gradients."""

from __future__ import annotations

import torch

from rewardkit.policies.table import TablePolicy
from rewardkit.protocols import State, Stepwise


def table(horizon: int = 3) -> TablePolicy:
    size = sum(3**t for t in range(horizon))
    logits = torch.randn(2, size, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return TablePolicy(["x", "y"], ["a", "b", "c"], horizon, logits)


def test_every_path_has_the_probability_that_enumeration_gives_it() -> None:
    """All actions of all prefixes are drawn; the product of their log-probs is the output's."""
    policy = table()
    state = policy.start(["x"], seed=0)
    assert isinstance(policy, Stepwise)
    assert isinstance(state, State)
    total = torch.zeros(1, dtype=torch.float64)
    for _ in range(3):
        drawn, logps = policy.propose(state, 400)
        assert logps is not None
        table_N3 = torch.zeros(len(state), 3, dtype=torch.float64).scatter(1, drawn, logps)
        assert (table_N3 < 0).all(), "400 draws met every action"
        rows = torch.arange(len(state)).repeat_interleave(3)
        total = total[rows] + table_N3.flatten()
        state = policy.step(state.select(rows), torch.arange(3).repeat(len(state)))
    outputs, p = policy.enumerate("x")
    assert [s.output for s in policy.look(state)] == [s.output for s in outputs]
    torch.testing.assert_close(total.exp(), p)


def test_stepping_from_a_seed_is_sampling_from_it() -> None:
    policy = table()
    rollout = policy.sample(["x", "y"], 50, seed=3)
    state = policy.start(["x"] * 50 + ["y"] * 50, seed=3)
    while not state.done.all():
        state = policy.step(state, policy.propose(state)[0][:, 0])
    assert [s.output for s in policy.look(state)] == [s.output for s in rollout.samples]


def test_proposals_come_as_often_as_their_probability_says() -> None:
    drawn, logps = table().propose(table().start(["x", "y"], seed=1), 20_000)
    assert logps is not None
    for row in range(2):
        share = torch.bincount(drawn[row], minlength=3) / 20_000
        want = table().logits[row, 0].softmax(-1)
        assert (share - want).abs().max() < 4 * 0.5 / 20_000**0.5


def test_forks_take_other_ways_and_unfinished_rows_show_what_they_have() -> None:
    policy = table()
    first = policy.step(policy.start(["x", "y"], seed=0), torch.tensor([2, 1]))
    forked = policy.step(first.select(torch.tensor([1, 0, 1])), torch.tensor([0, 1, 2]))
    looked = policy.look(forked)
    assert [(s.prompt, s.output, s.ended) for s in looked] == [
        ("y", ("b", "a"), "cut"), ("x", ("c", "b"), "cut"), ("y", ("b", "c"), "cut"),
    ]  # fmt: skip
    assert [s.output for s in policy.look(first)] == [("c",), ("b",)]
    ended = policy.step(forked, torch.tensor([0, 0, 0]))
    assert ended.done.all()
    assert policy.step(ended, torch.tensor([1, 1, 1])).actions.equal(ended.actions)
    assert not policy.propose(ended)[1].any()  # type: ignore[union-attr]


def test_one_action_is_the_output_itself_and_gradients_reach_the_logits() -> None:
    policy = table(1)
    state = policy.start(["y"], seed=0)
    drawn, logps = policy.propose(state)
    assert logps is not None
    [found] = torch.autograd.grad(logps.sum(), [policy.logits])
    want = torch.eye(3)[drawn[0, 0]] - policy.logits[1, 0].detach().softmax(-1)
    torch.testing.assert_close(found[1, 0], want.double())
    assert policy.look(policy.step(state, drawn[:, 0]))[0].output == "abc"[int(drawn)]
