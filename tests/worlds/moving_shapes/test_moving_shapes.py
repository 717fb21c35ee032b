"""World moving_shapes: exact flows, motion that is read right, and rewards that mean what they say."""

from __future__ import annotations

import random

import pytest
import torch

from rewardkit.policies.diffusion import Denoise
from rewardkit.types import Rollout, Sample
from rewardkit.worlds.moving_shapes import Move, MovingShapes, Similarity, Thing, flow_reward, flows, judged, see
from rewardkit.worlds.moving_shapes.scene import SIDE, drawn


@pytest.fixture(scope="module")
def moves() -> list[Move]:
    chance = random.Random(0)
    return [drawn(chance) for _ in range(150)]


def scored(reward, samples: list[Sample]) -> torch.Tensor:
    outcome = reward(Rollout(samples, torch.ones(len(samples), 1))).outcome
    assert outcome is not None
    return outcome


def test_motion_is_read_off_the_true_clip(moves: list[Move]) -> None:
    for move in moves:
        for share in (0.3, 1.0):
            seen = see(move, move.picture(share))
            assert seen.shifts[0] == pytest.approx([share * s for s in move.shift], abs=0.2)
            assert seen.shifts[1] == pytest.approx((0.0, 0.0), abs=0.05)
            assert seen.still < 0.01


def test_flow_is_the_shift_on_the_moved_thing_and_nothing_elsewhere(moves: list[Move]) -> None:
    move = Move((Thing("square", "red", 8.0, 8.0), Thing("disc", "blue", 3.0, 3.0)), "up", "a little")
    flow, where = move.flow(), move.footprint()
    assert int(where.sum()) == 16
    assert flow[:, where].tolist() == [[0.0] * 16, [-2.0] * 16]
    assert not flow[:, ~where].any()
    found, asked = flows(Sample(move, move.picture(1.0)))
    torch.testing.assert_close(found, asked, atol=0.15, rtol=0)


def test_a_thing_that_is_gone_did_not_move_and_noise_pleases_nobody(moves: list[Move]) -> None:
    world = MovingShapes()
    alone = moves[0].picture().clone()
    alone[:, moves[0].footprint()] = 0.05
    assert see(moves[0], alone).shifts[0] == (0.0, 0.0)
    noise = [
        Sample(m, torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(i))) for i, m in enumerate(moves)
    ]
    assert float(world.gold.of(noise).max()) < 0.3


def test_gold_orders_true_copied_and_astray(moves: list[Move]) -> None:
    for frames in (1, 3):
        world = MovingShapes(frames)
        true, copied, astray = (
            world.demonstrations(80, seed=1, copied=c, astray=a) for c, a in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))
        )
        golds = [float(world.gold.of(s).mean()) for s in (true, copied, astray)]
        assert golds[0] > 0.95
        assert golds[0] > golds[1] + 0.3 > golds[2]


def test_rewards_see_what_they_are_for() -> None:
    world = MovingShapes()
    true, copied, astray = (
        world.demonstrations(80, seed=1, copied=c, astray=a) for c, a in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))
    )
    flow = [float(scored(flow_reward(levels=None), s).mean()) for s in (true, copied, astray)]
    assert flow[0] > 0.99
    assert flow[0] > flow[1] > flow[2]
    bare = flow_reward(move=False, levels=None)
    assert float(scored(bare, copied).mean()) > flow[1], "without its term an unchanged picture is cheaper"
    glance = [float(scored(Similarity(), s).mean()) for s in (true, copied)]
    assert glance[0] > 0.99 > glance[1] > 0.8


def test_figures_of_the_true_edit() -> None:
    world = MovingShapes()
    found = [judged(s) for s in world.demonstrations(50, seed=2, copied=0.0, astray=0.0)]
    assert all(f["direction"] == 1 and f["error"] < 0.2 and f["copied"] == 0 for f in found)
    still = [judged(s) for s in world.demonstrations(50, seed=2, copied=1.0, astray=0.0)]
    assert all(f["direction"] == 0 and f["copied"] == 1 for f in still)


@pytest.mark.parametrize("frames", [1, 3])
def test_a_policy_is_built_once_and_measured(frames: int, monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("REWARDKIT_CACHE", str(tmp_path))
    world = MovingShapes(frames)
    policy, again = world.base_policy(steps=2), world.base_policy(steps=2)
    one, two = (p.sample(world.prompts(2, seed=0), 2, sampling=Denoise(3), seed=0) for p in (policy, again))
    assert torch.equal(one.samples[0].output, two.samples[0].output)
    assert one.samples[0].output.shape == ((3, SIDE, SIDE) if frames == 1 else (3, 3, SIDE, SIDE))
    torch.testing.assert_close(policy.evaluate(one)["logps"], one["old_logps"], atol=1e-2, rtol=1e-4)
    found = world.measure(policy, n=3, sampling=Denoise(3))
    assert set(found) == {"gold", "direction", "error", "identity", "copied", "spread", "kl"}
    data = policy.encode(world.demonstrations(4, seed=0))
    assert data.inputs["clean"].shape == (4, 3 * frames, SIDE, SIDE)
    assert data["noise_level"].shape == data.mask.shape


def test_guidance_takes_the_instruction_and_the_picture_away() -> None:
    world = MovingShapes()
    policy = world.policy()
    rollout = policy.sample(world.prompts(2, seed=0), 1, sampling=Denoise(3, guidance=2.0), seed=0)
    torch.testing.assert_close(policy.evaluate(rollout)["logps"], rollout["old_logps"], atol=1e-2, rtol=1e-4)
