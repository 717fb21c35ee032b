"""Pick and place in tokens: the game, its demonstrations, its base policy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rewardkit.policies.language import Critic
from rewardkit.types import Sample
from rewardkit.worlds.control.arm import HORIZON, PickPlaceWorld
from rewardkit.worlds.control.pick import TASKS, PickPlace, task

LINE = Sample(None, hidden={"points": ((0.0, 0.0), (0.45, 0.0), (0.53, 0.45))})


def said(game: PickPlace, *actions: str) -> list[str | None]:
    """What the environment answers, ``None`` where it is over."""
    found = []
    for action in actions:
        messages, done = game.step({"content": action})
        found.append(None if done else messages[0]["content"])
    return found


def test_bring_an_object_to_its_place() -> None:
    game = PickPlace()
    assert game.reset(LINE)[0]["content"] == "2GN"
    assert said(game, "ex+", "cz-") == ["1EP", None]
    assert game.state()["done"]
    assert game.state()["steps"] == 2


def test_a_grip_at_the_wrong_place_grips_nothing_and_a_dropped_object_lies_where_it_fell() -> None:
    game = PickPlace()
    game.reset(LINE)
    assert said(game, "cx+")[0][0] == "2"  # far from the object
    assert said(game, "ex+")[0][0] == "1"
    fell = game.now[0, 0:2].clone()
    assert said(game, "cy-")[0][0] == "2"  # dropped on the way, half a push further
    assert torch.equal(game.aims[0], game.now[0, 0:2])
    assert float((game.aims[0] - fell).norm()) > 0.1
    assert said(game, "cx+")[0][0] == "1"  # and picked up from there


@pytest.mark.parametrize("wrong", ["", "e", "ex", "xe+", "exx", "ex+e", "00+"])
def test_what_is_no_action_moves_nothing(wrong: str) -> None:
    game = PickPlace()
    first = game.reset(LINE)[0]["content"]
    before = game.now.clone()
    assert said(game, wrong) == [first]
    assert torch.equal(game.now, before)
    assert game.state()["steps"] == 1


def test_a_snapshot_is_put_back_as_often_as_wanted() -> None:
    game = PickPlace()
    game.reset(LINE)
    back = game.snapshot()
    for _ in range(2):
        assert said(game, "ex+", "cz-")[-1] is None
        back()
        assert (game.state()["steps"], game.state()["left"], game.done) == (0, 2, False)


def test_tasks_are_as_far_apart_as_they_say() -> None:
    rng = np.random.default_rng(0)
    for name, (objects, apart) in TASKS.items():
        points = np.array(task(name, rng).hidden["points"])
        assert len(points) == 1 + 2 * objects
        assert np.linalg.norm(np.diff(points, axis=0), axis=1) == pytest.approx([apart] * 2 * objects)


def test_careful_demonstrators_solve_what_clumsy_ones_do_not() -> None:
    def share(clumsy: float) -> float:
        return float(
            np.mean([s.hidden["state"]["done"] for s in PickPlaceWorld(clumsy=clumsy).demonstrations(60, seed=0)])
        )

    assert share(0.0) > 0.9
    assert share(1.0) < 0.6


def test_segments_of_a_careful_demonstration_are_its_legs() -> None:
    """Without slips the gripper changes once a leg: the share finished is what the environment's count says."""
    world = PickPlaceWorld(clumsy=0.0)
    done, shares = world.progress(world.demonstrations(60, seed=1))
    same = []
    for sample, own in zip(done, shares, strict=True):
        legs = [int(m["content"][0]) for m in [*sample.prompt, *sample.output] if m["role"] == "user"]
        same.append(torch.allclose(own, torch.tensor([1 - x / legs[0] for x in legs])))
    assert np.mean(same) > 0.9  # in a few the hand may come to rest on the way


def test_a_policy_plays_in_actions_of_several_tokens() -> None:
    world = PickPlaceWorld()
    policy = world.base_policy(steps=1)
    rollout = world.play(policy, world.prompts(1, seed=0), 2, seed=0)
    assert len(rollout) == 12
    assert int(rollout.segments["turn"].max()) < HORIZON
    ratio = (policy.evaluate(rollout)["logps"] - rollout["old_logps"])[rollout.mask > 0]
    assert float(ratio.abs().max()) < 1e-4
    found = world.measure(policy, n=1)
    assert {"gold", "long", "actions", "kl"} <= set(found)
    assert found["kl"] == pytest.approx(0.0, abs=1e-4)
    assert Critic.from_policy(policy).evaluate(rollout)["values"].shape == rollout.mask.shape


def test_observations_of_demonstrations_are_not_trained() -> None:
    world = PickPlaceWorld()
    policy = world.base_policy(steps=1)
    samples = world.demonstrations(6, seed=0)
    data = policy.encode(samples)
    actions = [sum(m["role"] == "assistant" for m in s.output) for s in samples]
    assert (data.mask > 0).sum(1).tolist() == [4 * a for a in actions]  # three tokens and EOS
    assert (data.segments["turn"].amax(1) + 1).tolist() == actions
