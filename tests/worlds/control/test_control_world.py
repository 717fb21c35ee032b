"""World control: Gymnasium's contract, copies that agree with one, gradients, demonstrators, annotators, figures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from rewardkit.policies.control import ControlPolicy, Steps
from rewardkit.rewards.learned.step import StepNet, StepReward
from rewardkit.worlds.control import Control, PointEnvs, PointReach, film, frames, trajectories
from rewardkit.worlds.control.physics import HORIZON, NEAR, TASKS, advance, distance, gold, start, task_of

WORLD = Control(episodes=6)


def test_gymnasium_accepts_it() -> None:
    check_env(PointReach(), skip_render_check=False)


def test_copies_behave_as_single_environments_do() -> None:
    rng, envs = np.random.default_rng(0), PointEnvs(3)
    single = [PointReach() for _ in range(3)]
    first = envs.reset(seeds=[5, 6, 7])
    np.testing.assert_array_equal(first, [e.reset(seed=s)[0] for e, s in zip(single, (5, 6, 7), strict=True)])
    for t in range(HORIZON):
        actions = rng.uniform(-1.5, 1.5, (3, 2)).astype(np.float32)
        found, rewards, ended, late = envs.step(actions)
        alone = [e.step(a) for e, a in zip(single, actions, strict=True)]
        np.testing.assert_allclose(found, [a[0] for a in alone], atol=1e-6)
        assert rewards.tolist() == [a[1] for a in alone]
        assert not ended.any()
        assert late.all() == (t == HORIZON - 1)


def test_an_episode_is_a_function_of_its_seed_and_states_are_put_back() -> None:
    envs = PointEnvs(2, seed=4)
    begun = envs.reset().copy()
    restore = envs.snapshot()
    after = envs.step(np.ones((2, 2)))[0].copy()
    envs.step(np.ones((2, 2)))
    restore()
    np.testing.assert_array_equal(envs.observation, begun)
    np.testing.assert_array_equal(envs.step(np.ones((2, 2)))[0], after)
    envs.reset(np.array([True, False]))
    assert envs.seeds.tolist() == [6, 5], "later episodes of a copy are as many seeds apart as there are copies"
    np.testing.assert_array_equal(envs.observation[1], after[1])


def test_tasks_differ_in_how_far_the_goal_is() -> None:
    away = {t: distance(start(torch.arange(30)))[[task_of(s) == t for s in range(30)]] for t in TASKS}
    assert away["near"].max() < away["side"].min() < away["across"].min()


def test_dynamics_and_gold_have_gradients() -> None:
    first = start(torch.tensor([2]))
    actions = torch.zeros(HORIZON, 1, 2, requires_grad=True)
    now, total = first, torch.zeros(1)
    for a in actions:
        after = advance(now, a)
        total, now = total + gold(now, a, after), after
    (g,) = torch.autograd.grad(total.sum(), [actions])
    assert (g.abs().sum((1, 2)) > 0).all()
    with torch.no_grad():
        toward = (actions + 0.05 * g.sign()).clamp(-1, 1)
        better, now = torch.zeros(1), first
        for a in toward:
            after = advance(now, a)
            better, now = better + gold(now, a, after), after
    assert better > total


def test_demonstrators_keep_their_order_and_differ_near_the_hazard() -> None:
    shown = WORLD.demonstrations(300, seed=0)
    mean = {
        q: WORLD._total([s for s in shown if s.hidden["quality"] == q]).mean()
        for q in ("expert", "straight", "wanderer")
    }
    assert mean["expert"] > mean["straight"] + 1 > mean["wanderer"] + 5
    experts = [s for s in shown if s.hidden["quality"] == "expert"]
    assert np.mean([s.output.rewards[-1] for s in experts]) > 0.95


def test_annotators_tie_flip_and_err_as_often_as_they_are_told() -> None:
    pieces = WORLD.segments(WORLD.demonstrations(200, seed=1), 2000, seed=2)
    first, second = pieces[0::2], pieces[1::2]
    better = (WORLD._total(first) > WORLD._total(second)).numpy()

    def right(**how: float) -> tuple[float, float]:
        judged = WORLD.compare(first, second, seed=3, noise=1e-6, **how)
        plain = [(j.rank == (0, 1)) == b for j, b in zip(judged, better, strict=True) if not j.tied]
        return float(np.mean(plain)), float(np.mean([j.tied for j in judged]))

    assert right() == (1.0, 0.0)
    clean, tied = right(ties=0.3)
    assert clean == 1.0
    assert abs(tied - 0.3) < 0.01
    noisy, _ = right(flips=0.2)
    assert abs(noisy - 0.8) < 0.04
    assert len(pieces[0].output) == 8


def test_pictures_show_where_the_point_is_and_carry_gradients() -> None:
    now = start(torch.arange(2)).requires_grad_()
    seen = frames(now)
    assert seen.shape == (2, 3, 32, 32)
    assert seen.min() >= 0
    assert seen.max() <= 1
    seen.square().sum().backward()
    assert now.grad is not None
    assert (now.grad[:, 0:2].abs().sum(-1) > 0).all()
    x, y = start(torch.arange(2))[0, 0:2].tolist()
    row, column = int((1 - y) / 2 * 32), int((x + 1) / 2 * 32)
    assert seen[0, 2, row, column] > 0.7 > seen[0, 0, row, column] + 0.3
    dark = frames(now.detach(), background=torch.tensor([0.2, 0.1, 0.1]))
    assert dark[0, 0, 0, 0] < 0.3
    shown = WORLD.demonstrations(6, seed=0)
    assert "<svg" in trajectories("demonstrations", shown)
    assert film("one", shown[0], shots=3).count("<image") == 3


def test_the_base_policy_is_kept_and_its_figures_are_of_itself(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWARDKIT_CACHE", str(tmp_path))
    policy = WORLD.base_policy(episodes=20, steps=2)
    again = WORLD.base_policy(episodes=20, steps=2)
    for a, b in zip(policy.module.parameters(), again.module.parameters(), strict=True):
        assert torch.equal(a, b)
    found = WORLD.measure(policy, n=2)
    assert found["kl"] == 0
    assert 0 <= found["success"] <= 1
    assert found["spread"] > 0
    assert WORLD.measure(policy, n=2, greedy=True)["spread"] == 0
    with torch.no_grad():
        policy.module.log_std.sub_(1.0)
    assert WORLD.measure(policy, n=2)["kl"] > 1


def test_step_rewards_sum_over_a_segment_and_reach_the_action() -> None:
    policy = WORLD.policy()
    rollout = policy.sample([0, 1], env=WORLD.envs(2), sampling=Steps(HORIZON, fresh=True), seed=0)
    dense, whole = WORLD.gold_steps(rollout), WORLD.gold(rollout)
    assert whole.outcome is not None
    torch.testing.assert_close(dense.dense["token"].sum(1), whole.outcome)
    path = torch.from_numpy(rollout.samples[1].output.observations)
    want = gold(path[:-1], torch.zeros(HORIZON, 2), path[1:])
    torch.testing.assert_close(dense.dense["token"][1], want)
    reward = StepReward(StepNet(14, width=8))
    shown = WORLD.demonstrations(20, seed=0)
    own = reward.standardise(shown).encode(shown)
    values = reward.steps(own).detach()[own.mask > 0]
    assert abs(float(values.mean())) < 1e-4
    assert abs(float(values.std()) - 1) < 1e-3
    actions = torch.zeros(3, 2, requires_grad=True)
    reward.of(torch.zeros(3, 6), actions, torch.zeros(3, 6)).sum().backward()
    assert actions.grad is not None
    assert actions.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="whole rows"):
        reward(rollout.steps())
    assert isinstance(policy, ControlPolicy)
    assert NEAR < 0.2


def test_wrong_answers_do_not_follow_from_what_was_drawn_with_the_same_seed() -> None:
    """Segments and annotators that are given one seed draw from streams of their own."""
    episodes = WORLD.demonstrations(40, seed=1)
    pieces = WORLD.segments(episodes, 2000, length=1, seed=5)
    clean, noisy = (WORLD.compare(pieces[0::2], pieces[1::2], seed=5, noise=1e-9, flips=f) for f in (0.0, 0.3))
    wrong = np.array([a.rank != b.rank for a, b in zip(clean, noisy, strict=True)], dtype=float)
    moments = {o.tobytes(): t for s in episodes for t, o in enumerate(s.output.observations)}
    for side in (pieces[0::2], pieces[1::2]):
        at = [moments[s.output.observations[0].tobytes()] for s in side]
        assert abs(np.corrcoef(wrong, at)[0, 1]) < 0.15
