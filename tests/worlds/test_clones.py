"""Actors that imitate."""

from __future__ import annotations

import torch

from rewardkit.worlds.clones import imitate
from rewardkit.worlds.control import Control


def test_a_clone_is_likelier_to_do_what_it_saw_than_before_and_the_same_each_time() -> None:
    world = Control(episodes=6)
    shown, unseen = world.demonstrations(24, seed=0), world.demonstrations(24, seed=1)
    policy, twin = world.policy(seed=0), world.policy(seed=0)
    rows = policy.encode(unseen)
    before = policy.evaluate(rows)["logps"].detach().sum()
    imitate(policy, shown, steps=60, seed=0)
    imitate(twin, shown, steps=60, seed=0)
    assert policy.evaluate(rows)["logps"].sum() > before
    for mine, theirs in zip(policy.module.parameters(), twin.module.parameters(), strict=True):
        assert torch.equal(mine, theirs)
