"""World driving: what is earned, what ends an episode and what only cuts it, seeds, copies, annotators."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from rewardkit.cli.main import main
from rewardkit.credit.base import apply
from rewardkit.credit.returns import gae
from rewardkit.policies.control import ControlCritic, Envs, Steps
from rewardkit.policies.control.pieces import Trajectory
from rewardkit.types import Rollout, Sample
from rewardkit.worlds.driving import Driving, LaneEnvs, LaneTrack, additive, driving_score, simple, subtracted, tracks
from rewardkit.worlds.driving.physics import COLUMN, DT, FACTS, HORIZON, LIMIT, ROUTE, SENSES, STILL, Scene, curvature

WORLD = Driving(24)
EMPTY = Driving(4, scene=Scene(cars=0, lights=0, bend=0.0))
COAST, GAS, BRAKE = 12, 17, 2


def episode(ended: str = "cut", steps: int = 4, **facts: list[float]) -> Rollout:
    """A rollout of one written episode; what is not named is 0 throughout."""
    seen = np.zeros((steps + 1, len(SENSES) + len(FACTS)), dtype=np.float32)
    for name, values in facts.items():
        seen[1:, COLUMN[name]] = values
    path = Trajectory(seen, np.zeros(steps, dtype=np.int64), np.zeros(steps))
    return WORLD.policy(hidden=(4,)).encode([Sample(0, path, ended=ended)])  # type: ignore[arg-type]


def total(reward, rollout: Rollout) -> float:  # type: ignore[no-untyped-def]
    scores = reward(rollout)
    return float(sum(scores.weights[k] * p.dense["token"].sum() for k, p in scores.parts.items()))


def test_gymnasium_accepts_it() -> None:
    check_env(LaneTrack(), skip_render_check=True)
    check_env(LaneTrack(continuous=True), skip_render_check=True)


def test_a_perfect_episode_is_worth_100_and_is_cut_not_ended() -> None:
    rollout = EMPTY.careful()
    assert total(simple(), rollout) == pytest.approx(4 * 100, abs=1e-3)
    assert driving_score(rollout).outcome.tolist() == pytest.approx([100] * 4, abs=1e-3)
    assert [s.ended for s in rollout.samples] == ["cut"] * 4
    scored = driving_score(WORLD.careful()).outcome
    assert scored.min() > 99.9, "a careful driver finishes every track without an infraction"


def test_dawdling_earns_nothing_and_ends() -> None:
    envs = LaneEnvs(3, scene=EMPTY.scene)
    envs.reset()
    for t in range(STILL):
        _, paid, ended, late = envs.step(np.full(3, COAST))
        assert not paid.any()
        assert ended.all() == (t == STILL - 1)
        assert not late.any()
    assert envs.facts["blocked"].all()
    standing = episode("done", progress=[0.0] * 4)
    assert total(simple(), standing) == pytest.approx(-1.0)
    assert total(additive(), episode(gap=[1.0] * 4, light=[0.25] * 4, red=[1.0] * 4)) > 1, "the shaped sum pays it"


def test_penalties_multiply_what_a_step_earned() -> None:
    clean = episode(progress=[2.0, 2.0, 2.0, 2.0])
    assert total(simple(), clean) == pytest.approx(8.0)
    off = episode(progress=[2.0, 2.0, 2.0, 2.0], off_lane=[0, 1, 0, 0])
    assert total(simple(), off) == pytest.approx(6.0)
    assert driving_score(off).outcome.item() == pytest.approx(6.0)
    fast = episode(progress=[2.0, 2.0, 0.0, 2.0], excess=[1.5, 0, 3.0, 9.0])
    assert total(simple(), fast) == pytest.approx(1.0 + 2.0)
    idle = {"progress": [0.0] * 4, "off_lane": [1.0] * 4}
    assert total(simple(), episode(**idle)) == 0
    assert total(subtracted(), episode(**idle)) == pytest.approx(-4 * 100 * LIMIT * DT / ROUTE)
    both = episode(progress=[2.0] * 4, danger=[1, 0, 0, 0], harsh=[1, 0, 0, 0], aside=[9, 0.3, 0.9, 0])
    assert total(simple(), both) == pytest.approx(2 * 0.125 + 2 + 2 * 0.75 + 2)


def test_a_bad_end_costs_little_and_once() -> None:
    crash = {"progress": [2.0] * 4, "collision": [0.0, 0, 0, 1]}
    assert total(simple(size=1, extra=4), episode("done", **crash)) == pytest.approx(8 - 5)
    assert driving_score(episode("done", **crash)).outcome.item() == pytest.approx(0.6 * 8)
    both = crash | {"red_run": [0.0, 0, 0, 1]}
    assert driving_score(episode("done", **both)).outcome.item() == pytest.approx(0.42 * 8)
    left = episode("done", progress=[2.0] * 4, left=[0, 0, 0, 1])
    assert total(simple(size=1, extra=4), left) == pytest.approx(7)


def test_the_end_of_the_route_is_bootstrapped_and_an_infraction_is_not() -> None:
    last = {}
    for ended in ("cut", "done"):
        rollout = episode(ended, progress=[2.0] * 4)
        critic = ControlCritic.scratch(WORLD.envs(1), hidden=(4,))
        torch.nn.init.constant_(critic.module[-1].bias, 7.0)
        torch.nn.init.zeros_(critic.module[-1].weight)
        rollout = rollout.with_tensors(**critic.evaluate(rollout, ("values", "bootstrap")))
        last[ended] = apply(partial(gae, gamma=0.5, lam=0.0), rollout, simple()(rollout))["advantages"][0, -1].item()
    assert last == pytest.approx({"cut": 2 + 0.5 * 7 - 7, "done": 2 - 1 - 7})


def test_episodes_are_functions_of_seeds_and_states_are_put_back() -> None:
    rng, envs = np.random.default_rng(0), LaneEnvs(3, seed=4)
    begun = envs.reset().copy()
    np.testing.assert_array_equal(begun[1], LaneTrack().reset(seed=5)[0])
    restore = envs.snapshot()
    actions = rng.integers(0, 20, (60, 3))

    def drive() -> np.ndarray:
        seen = []
        for a in actions:
            found, _, ended, late = envs.step(a)
            seen.append(found.copy())
            envs.reset(ended | late)
        return np.stack(seen)

    first = drive()
    restore()
    np.testing.assert_array_equal(envs.observation, begun)
    np.testing.assert_array_equal(drive(), first)
    single = LaneTrack()
    single.reset(seed=5)
    np.testing.assert_array_equal(single.step(actions[0, 1])[0], first[0, 1])
    assert not np.array_equal(LaneEnvs(3, seed=9).reset(), begun)
    fresh = LaneEnvs(2, seed=4)
    fresh.reset()
    fresh.reset(np.array([True, False]))
    assert fresh.seeds.tolist() == [6, 5], "later episodes of a copy are as many seeds apart as there are copies"


def test_who_does_not_brake_runs_red_lights_and_into_cars() -> None:
    def blind(scene: Scene) -> LaneEnvs:
        envs = LaneEnvs(200, scene=scene)
        envs.reset()
        ever = np.zeros((2, 200), dtype=bool)
        gone = np.zeros(200, dtype=bool)
        for _ in range(80):
            _, _, ended, late = envs.step(np.full(200, GAS))
            ever |= np.stack([envs.facts["collision"], envs.facts["red_run"]]).astype(bool) & ~gone
            gone |= ended | late
        envs.ever = ever.mean(1)  # type: ignore[attr-defined]
        return envs

    lights = blind(Scene(cars=0, lights=2, bend=0.0)).ever  # type: ignore[attr-defined]
    # Two lights that count as red for 20 of 56 steps.
    assert lights[1] == pytest.approx(1 - (36 / 56) ** 2, abs=0.12)
    assert lights[0] == 0
    assert blind(Scene(cars=2, lights=0, bend=0.0)).ever[0] > 0.95  # type: ignore[attr-defined]


def test_driving_straight_leaves_a_bend_and_braking_is_uncomfortable() -> None:
    envs = LaneEnvs(50, scene=Scene(cars=0, lights=0))
    envs.reset()
    left = np.zeros(50, dtype=bool)
    for _ in range(60):
        envs.step(np.full(50, GAS))
        left |= envs.facts["left"]
    assert left.mean() > 0.5
    envs.step(np.full(50, BRAKE))
    assert envs.facts["harsh"].all()
    wave = curvature(Scene(), np.zeros((1, 2)), np.linspace(0, ROUTE, 400))
    assert np.abs(wave).max() < 1 / 55


def test_time_up_terminates() -> None:
    envs = LaneEnvs(1, scene=EMPTY.scene)
    envs.reset()
    for t in range(HORIZON):
        # A crawl below the speed that would finish in time.
        _, _, ended, _ = envs.step(np.array([GAS if t % 40 == 0 else (COAST if t % 40 < 3 else BRAKE)]))
    assert ended[0]


def test_annotators_prefer_the_better_drive_and_flip_as_told() -> None:
    good, bad = WORLD.careful(), WORLD.careful(noise=0.8, seed=1)
    better = driving_score(good).outcome > driving_score(bad).outcome + 30
    said = torch.tensor([j.rank == (0, 1) for j in WORLD.compare(good, bad, seed=0)])
    assert said[better].double().mean() > 0.9
    wrong = torch.tensor([j.rank == (0, 1) for j in WORLD.compare(good, bad, seed=0, flips=1.0)])
    assert (said != wrong).all()


def test_a_policy_is_measured_and_drawn_and_continuous_actions_work() -> None:
    found = Driving(4).measure(WORLD.policy(hidden=(8,)), n=2)
    assert 0 <= found["gold"] <= found["completion"] <= 100
    assert found["kl"] == 0.0
    world = Driving(2, continuous=True)
    assert world.draw(world.policy(hidden=(8,)), seed=0).inputs["actions"].shape[-1] == 2
    assert "<svg" in tracks(Driving(2).careful().samples)


def test_the_base_policy_is_built_once_and_learns_to_drive_from_unsteady_hands(cache: Path) -> None:
    world = Driving(12, continuous=True)
    policy = world.base_policy(steps=60, episodes=40)
    again = world.base_policy(steps=60, episodes=40)
    assert len(list((cache / "driving").glob("*/model.safetensors"))) == 1
    for a, b in zip(policy.module.parameters(), again.module.parameters(), strict=True):
        assert torch.equal(a, b)
    found, untrained = world.measure(policy), world.measure(world.policy())
    assert found["kl"] == 0
    assert untrained["gold"] + 10 < found["gold"] < 95
    world.base_policy(steps=1, episodes=2, noise=0.1)
    Driving(3, continuous=True, seed=1).build(steps=1, episodes=2, noise=0.1)
    Driving(3, scene=EMPTY.scene).build(steps=1, episodes=2, noise=0.1)
    assert len(list((cache / "driving").glob("*/model.safetensors"))) == 4, "noise, seed and scene make others"
    with pytest.raises(ValueError, match="continuous=True"):
        WORLD.base_policy()


def test_the_command_line_builds_the_base_policy(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["worlds", "build", "driving", "--steps", "1"]) == 0
    folder = Path(capsys.readouterr().out.split("  ")[0])
    assert folder.is_relative_to(cache)
    assert (folder / "model.safetensors").is_file()


def test_variety_is_the_deviation_of_speeds_where_two_have_been() -> None:
    def driven(*speeds: float) -> Sample:
        seen = np.zeros((len(speeds) + 1, len(SENSES) + len(FACTS)), dtype=np.float32)
        seen[1:, COLUMN["speed"]], seen[1:, COLUMN["progress"]] = np.array(speeds) / LIMIT, 50.0
        return Sample(0, Trajectory(seen, np.zeros(len(speeds), dtype=np.int64), np.zeros(len(speeds))))

    def of(*samples: Sample, group: list[int]) -> float:
        return WORLD.variety(Rollout(list(samples), torch.ones(len(samples), 2), torch.tensor(group)))

    # Up to half the route they were reached at 4 and at 6; beyond, one got there, or both at 2 and at 8.
    assert of(driven(4), driven(6, 1), group=[0, 0]) == pytest.approx(2**0.5)
    both = (10 * 2**0.5 + 9 * 18**0.5) / 19
    assert of(driven(4, 2), driven(6, 8), group=[0, 0]) == pytest.approx(both)
    assert of(driven(4, 2), driven(4, 2), group=[3, 3]) == 0
    assert of(driven(4, 2), driven(6, 8), group=[0, 1]) == 0, "other tracks are not compared"


def test_highway_env_is_scored_by_the_same_facts() -> None:
    pytest.importorskip("highway_env")
    from rewardkit.policies.control import ControlPolicy
    from rewardkit.worlds.driving.highway import Highway

    envs = Envs(lambda: Highway(route=200.0, duration=20), 2)
    rollout = ControlPolicy.scratch(envs, hidden=(8,)).sample([0, 1], env=envs, sampling=Steps(20, fresh=True), seed=0)
    score = driving_score(rollout)
    assert (score.outcome > 0).all()
    assert (score.outcome < 100.01).all()
    assert simple()(rollout).parts["progress"].dense["token"].shape == rollout.mask.shape
