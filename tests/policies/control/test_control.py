"""Actors on Gymnasium environments: densities, episodes as rows, what a cut-off episode still had to come."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from torch.distributions import Categorical, Independent, Normal

from rewardkit.credit.base import chain
from rewardkit.credit.group import group_relative, whiten
from rewardkit.credit.returns import gae, total
from rewardkit.loops.online import online
from rewardkit.loops.prompts import PromptSet
from rewardkit.objectives.policy import clipped, reinforce
from rewardkit.policies.control import ControlCritic, ControlPolicy, Envs, Steps
from rewardkit.protocols import Policy
from rewardkit.rewards.rules.environment import Environment
from rewardkit.training.checkpoint import Checkpoints
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term


class Count(gymnasium.Env[Any, Any]):
    """Observes (seed, steps so far); ends by itself after ``ends`` steps, or runs out of time after ``limit``."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(3, start=5)

    def __init__(self, ends: int = 3, limit: int = 99) -> None:
        self.ends, self.limit, self.born, self.taken = ends, limit, 0, list[int]()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        self.born, self.steps = seed if seed is not None else self.born + 100, 0
        return self._seen(), {}

    def step(self, action: int):
        self.taken.append(int(action))
        self.steps += 1
        return self._seen(), float(self.steps), self.steps == self.ends, self.steps == self.limit, {}

    def _seen(self) -> np.ndarray:
        return np.array([self.born, self.steps], dtype=np.float32)


def test_it_is_a_policy() -> None:
    assert isinstance(ControlPolicy.scratch(Envs(Count)), Policy)


def test_log_probs_and_entropy_of_discrete_actions_are_torchs() -> None:
    envs = Envs("CartPole-v1", 2)
    policy = ControlPolicy.scratch(envs, hidden=(4,))
    rollout = policy.sample([0, 1], env=envs, sampling=Steps(40), seed=0)
    with torch.no_grad():
        found, live = policy.evaluate(rollout, ("logps", "entropy")), rollout.mask > 0
        own = Categorical(logits=policy.module(rollout.inputs["observations"]))
    torch.testing.assert_close(found["logps"][live], own.log_prob(rollout.inputs["actions"])[live])
    torch.testing.assert_close(found["entropy"][live], own.entropy()[live])
    assert not found["logps"][~live].any()
    torch.testing.assert_close(rollout["old_logps"], found["logps"])


def test_log_probs_and_entropy_of_boxes_are_torchs_and_draws_are_clipped_for_the_environment_alone() -> None:
    envs = Envs("Pendulum-v1", 3)
    policy = ControlPolicy.scratch(envs, hidden=(4,))
    with torch.no_grad():
        policy.module.log_std.fill_(2.0)
        rollout = policy.sample([0, 1, 2], env=envs, sampling=Steps(30), seed=0)
        mean, log_std = policy.module(rollout.inputs["observations"]).chunk(2, -1)
        own = Independent(Normal(mean, log_std.exp()), 1)
        found = policy.evaluate(rollout, ("logps", "entropy"))
    torch.testing.assert_close(found["logps"], own.log_prob(rollout.inputs["actions"]))
    torch.testing.assert_close(found["entropy"], own.entropy())
    assert rollout.inputs["actions"].abs().max() > 2
    assert np.abs(policy.actions.to_env(rollout.inputs["actions"][0])).max() <= 2


def test_rows_are_episodes_with_their_own_last_observation() -> None:
    """The first observation of the next episode never stands where the last one's value is looked up."""
    envs = Envs(Count, 2, seed=7)
    policy = ControlPolicy.scratch(envs, hidden=(4,))
    rollout = policy.sample([0, 1], env=envs, sampling=Steps(5), seed=0)
    assert rollout.mask.sum(-1).tolist() == [3, 2, 3, 2]
    assert [s.ended for s in rollout.samples] == ["done", "cut", "done", "cut"]
    assert rollout.group.tolist() == [0, 0, 1, 1]
    assert rollout.inputs["reached"][:, 0].tolist() == [[7, 3], [107, 2], [8, 3], [108, 2]]
    assert rollout["env_rewards"][:2].tolist() == [[1, 2, 3], [1, 2, 0]]
    assert set(envs.vector.envs[0].taken) <= {5, 6, 7}
    more = policy.sample([0, 1], env=envs, sampling=Steps(1), seed=1)
    assert more.inputs["observations"][:, 0].tolist() == [[107, 2], [108, 2]], "the next rollout goes on"


def test_encode_gives_the_rows_back() -> None:
    envs = Envs(Count)
    policy = ControlPolicy.scratch(envs, hidden=(4,))
    rollout = policy.sample([0], env=envs, sampling=Steps(5), seed=0)
    again = policy.encode(rollout.samples)
    torch.testing.assert_close(policy.evaluate(again)["logps"], rollout["old_logps"])
    assert torch.equal(again.mask, rollout.mask)
    with pytest.raises(ValueError, match="Trajectory"):
        policy.encode([rollout.samples[0].__class__(0, "left")])


@pytest.mark.parametrize("shared", [False, True])
def test_a_cut_off_episode_is_worth_what_the_critic_sees_and_an_ended_one_nothing_more(shared: bool) -> None:
    """R53: truncation is no termination."""
    for options, ended in (({"ends": 3}, "done"), ({"ends": 99, "limit": 3}, "cut")):
        envs = Envs(partial(Count, **options))
        policy = ControlPolicy.scratch(envs, hidden=(4,), critic=shared)
        critic: Any = policy if shared else ControlCritic.scratch(envs, hidden=(4,))
        rollout = policy.sample([0], env=envs, sampling=Steps(3), seed=0)
        assert rollout.samples[0].ended == ended
        with torch.no_grad():
            found = critic.evaluate(rollout, ("values", "bootstrap"))
            net = policy.module.critic if shared else critic.module
            reached = net(torch.tensor([[0.0, 3.0]]))[0, 0]
        assert found["bootstrap"].item() == (0.0 if ended == "done" else pytest.approx(reached.item()))
        names = {"rewards": rollout["env_rewards"], "mask": rollout.mask, **found}
        last = gae(**names, gamma=0.9)["advantages"][0, -1]
        assert last.item() == pytest.approx(3 + 0.9 * found["bootstrap"].item() - found["values"][0, -1].item())


def test_fresh_episodes_of_a_group_share_their_beginning_and_end_by_themselves() -> None:
    envs = Envs("CartPole-v1", 4)
    policy = ControlPolicy.scratch(envs, hidden=(4,))
    rollout = policy.sample([3, 9], 2, env=envs, sampling=Steps(200, fresh=True), seed=0)
    first = rollout.inputs["observations"][:, 0]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])
    assert rollout.group.tolist() == [0, 0, 1, 1]
    assert len(rollout) == 4
    assert {s.ended for s in rollout.samples} == {"done"}
    again = policy.sample([3, 9], 2, env=envs, sampling=Steps(200, fresh=True), seed=0)
    assert torch.equal(again.inputs["actions"], rollout.inputs["actions"])


def test_greedy_actions_are_the_likeliest() -> None:
    envs = Envs("CartPole-v1", 1)
    policy = ControlPolicy.scratch(envs)
    rollout = policy.sample([0], env=envs, sampling=Steps(50, fresh=True, greedy=True))
    with torch.no_grad():
        outputs = policy.module(rollout.inputs["observations"])
    assert torch.equal(outputs.argmax(-1), rollout.inputs["actions"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "pass env="),
        ({"env": Envs(Count, 3)}, "need 2 copies; env has 3"),
        ({"env": Envs(Count, 2), "sampling": Steps(fresh=True)}, "seed of its episode"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ControlPolicy.scratch(Envs(Count)).sample(["a", "b"], **options)


def test_spaces_without_a_distribution_are_refused() -> None:
    with pytest.raises(ValueError, match="Discrete and Box"):
        ControlPolicy(torch.nn.Linear(1, 1), gymnasium.spaces.MultiBinary(3))


def test_an_update_by_steps_is_the_update_by_outputs() -> None:
    envs = Envs("CartPole-v1", 3)
    policy = ControlPolicy.scratch(envs)
    rollout = policy.sample([0, 1, 2], env=envs, sampling=Steps(30), seed=0)
    rollout = rollout.with_tensors(advantages=torch.randn(rollout.mask.shape))
    learner = Learner(policy)
    whole, parts = learner.grads(Term(rollout, reinforce)), learner.grads(Term(rollout.steps(), reinforce))
    torch.testing.assert_close(parts, whole)


def ppo(envs: Envs, steps: int, checkpoint: Checkpoints | None = None):
    learner = Learner(ControlPolicy.scratch(envs, critic=True, seed=0), lr=1e-2)
    return online(
        learner, PromptSet(range(envs.copies), shuffle=False), Environment(), chain(gae, whiten), clipped,
        critic=learner, reference=None, env=envs, sampling=Steps(32), batch=envs.copies, n=1, inner=2, minibatch=64,
        rows="steps", steps=steps, checkpoint=checkpoint,
    )  # fmt: skip


def test_ppo_in_the_one_loop_learns_to_balance() -> None:
    """Fewer poles fall in the last turns than in the first, three seeds."""
    for seed in range(3):
        turns = list(ppo(Envs("CartPole-v1", 8, seed=seed), 20))
        fell = [sum(s.ended == "done" for s in t.rollout.samples) for t in turns]
        assert sum(fell[-5:]) < sum(fell[:5])


def test_a_killed_run_goes_on_in_the_middle_of_its_episodes(tmp_path) -> None:
    """The environments are part of the run."""
    whole = [t.metrics["loss"] for t in ppo(Envs("CartPole-v1", 4, seed=1), 6)]
    first = ppo(Envs("CartPole-v1", 4, seed=1), 6, Checkpoints(tmp_path, every=1))
    for _ in range(3):
        next(first)
    first.close()
    rest = [t.metrics["loss"] for t in ppo(Envs("CartPole-v1", 4, seed=1), 6, Checkpoints(tmp_path, every=1))]
    assert rest == pytest.approx(whole[3:], rel=1e-6)


def test_group_relative_credit_trains_whole_episodes_from_shared_starts() -> None:
    envs = Envs("CartPole-v1", 16)
    learner = Learner(ControlPolicy.scratch(envs, seed=0), lr=1e-2)
    run = online(
        learner, PromptSet(range(100)), Environment(), chain(total, group_relative), clipped, reference="start",
        env=envs, sampling=Steps(200, fresh=True), batch=2, n=8, steps=15,
    )  # fmt: skip
    found = [t.metrics["reward/return"] for t in run]
    assert np.mean(found[-5:]) > np.mean(found[:5])


def test_a_snapshot_brings_the_environments_back() -> None:
    envs = Envs("CartPole-v1", 2, seed=0)
    envs.reset()
    back = envs.snapshot()
    one = [envs.step(np.array([0, 1]))[0] for _ in range(3)]
    back()
    two = [envs.step(np.array([0, 1]))[0] for _ in range(3)]
    np.testing.assert_array_equal(one, two)


def test_a_rollout_after_whole_episodes_begins_new_ones() -> None:
    """The environment is left where it can be stepped, not where its episodes ended."""
    envs = Envs("CartPole-v1", 2, seed=0)
    policy = ControlPolicy.scratch(envs)
    policy.sample([3, 4], env=envs, sampling=Steps(500, fresh=True), seed=0)
    found = policy.sample([0, 1], env=envs, sampling=Steps(2), seed=0)
    assert all(abs(s.output.observations[0]).max() <= 0.05 or len(s.output) == 2 for s in found.samples)
    assert found.mask.sum() == 4
