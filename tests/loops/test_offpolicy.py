"""SAC and IQL: one update of Stable-Baselines3's SAC, transitions, actions of the data alone, a loop that learns."""

from __future__ import annotations

from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from rewardkit.data.replay import Replay
from rewardkit.loops.offpolicy import iql, replayed, sac
from rewardkit.objectives.offpolicy import sac_actor
from rewardkit.policies.control import (
    ControlCritic,
    ControlPolicy,
    ControlQ,
    Envs,
    Reparameterised,
    Steps,
    Temperature,
    transitions,
)
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Rollout, Sample


class Count(gymnasium.Env[Any, Any]):
    """Observes (seed, steps so far); ends after ``ends`` steps, or runs out of time after ``limit``."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self, ends: int = 3, limit: int = 99) -> None:
        self.ends, self.limit, self.born = ends, limit, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        self.born, self.steps = seed if seed is not None else self.born + 100, 0
        return self._seen(), {}

    def step(self, action: int):
        self.steps += 1
        return self._seen(), float(self.steps), self.steps == self.ends, self.steps == self.limit, {}

    def _seen(self) -> np.ndarray:
        return np.array([self.born, self.steps], dtype=np.float32)


class Aim(gymnasium.Env[Any, Any]):
    """One step; the reward falls with the distance of the action from what is observed."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-2, 2, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.at = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self.at, {}

    def step(self, action: np.ndarray):
        return self.at, -float(np.abs(action - self.at)[0]), True, False, {}


def test_transitions_end_where_the_environment_says_and_not_where_time_does() -> None:
    for options, terminal in (({"ends": 2}, [0, 1, 0]), ({"ends": 99, "limit": 2}, [0, 0, 0])):
        envs = Envs(partial(Count, **options), 1, seed=7)
        policy = ControlPolicy.scratch(envs, hidden=(4,))
        found = transitions(policy.sample([0], env=envs, sampling=Steps(3), seed=0))
        assert found["terminal"].flatten().tolist() == terminal
        assert found.inputs["observations"][:, 0].tolist() == [[7, 0], [7, 1], [107, 0]]
        assert found.inputs["next_observations"][:, 0].tolist() == [[7, 1], [7, 2], [107, 1]]
        assert found["env_rewards"].flatten().tolist() == [1, 2, 1]


def copied(from_: Any, space: Any) -> tuple[ControlPolicy, ControlQ]:
    """Our actor and critic with the weights of Stable-Baselines3's."""
    envs = Envs("Pendulum-v1", 1)
    policy = ControlPolicy.scratch(envs, squashed=True, hidden=(16,))
    critic = ControlQ.scratch(envs, hidden=(16,))
    actor = from_.actor
    with torch.no_grad():
        policy.module[0].load_state_dict(actor.latent_pi[0].state_dict())
        policy.module[2].weight.copy_(torch.cat([actor.mu.weight, actor.log_std.weight]))
        policy.module[2].bias.copy_(torch.cat([actor.mu.bias, actor.log_std.bias]))
        for k, net in enumerate((from_.critic.qf0, from_.critic.qf1)):
            for layer, ours in ((net[0], 0), (net[2], 1)):
                critic.module.weights[ours][k].copy_(layer.weight.T)
                critic.module.biases[ours][k, 0].copy_(layer.bias)
    return policy, critic


def test_one_update_is_stable_baselines3s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Critic, actor, temperature and target after two updates by plain gradient descent, which hides no scale."""
    from stable_baselines3 import SAC

    rate = 0.05
    theirs = SAC(
        "MlpPolicy",
        "Pendulum-v1",
        learning_rate=rate,
        batch_size=32,
        tau=0.1,
        gamma=0.9,
        policy_kwargs={"net_arch": [16], "optimizer_class": torch.optim.SGD, "optimizer_kwargs": {}},
        seed=0,
        device="cpu",
    )
    theirs.ent_coef_optimizer = torch.optim.SGD([theirs.log_ent_coef], lr=rate)
    space = theirs.action_space
    policy, critic = copied(theirs.policy, space)
    temperature = Temperature(1.0)
    plain: Any = partial(torch.optim.SGD, lr=rate)
    learners = [Learner(m, optimizer=plain, clip=None) for m in (policy, critic, temperature)]
    update = sac(*learners, gamma=0.9, rate=0.1, seed=4)

    chance = np.random.default_rng(0)
    observations, following = (chance.normal(size=(32, 3)).astype(np.float32) for _ in range(2))
    actions = chance.uniform(-1, 1, (32, 1)).astype(np.float32)
    rewards, ended = chance.normal(size=32).astype(np.float32), chance.random(32) < 0.3
    for i in range(32):
        theirs.replay_buffer.add(observations[i], following[i], actions[i], rewards[i : i + 1], ended[i : i + 1], [{}])
    theirs.replay_buffer.pos = 32
    everything = theirs.replay_buffer._get_samples(np.arange(32))
    monkeypatch.setattr(theirs.replay_buffer, "sample", lambda *a, **k: everything)
    noise, draws = torch.Generator().manual_seed(4), []
    for _ in range(2):
        ahead, now = (torch.randn((32, 1, 1), generator=noise)[:, 0] for _ in range(2))
        draws += [now, ahead]
    monkeypatch.setattr("torch.distributions.normal._standard_normal", lambda *a, **k: draws.pop(0))
    theirs._setup_learn(1)
    theirs.train(2, 32)
    batch = Rollout(
        [Sample(i) for i in range(32)],
        torch.ones(32, 1),
        tensors={"rewards": torch.tensor(rewards)[:, None], "terminal": torch.tensor(ended).float()[:, None]},
        inputs={
            "observations": torch.tensor(observations)[:, None],
            "next_observations": torch.tensor(following)[:, None],
            "actions": torch.tensor(actions)[:, None],
        },
    )
    before = policy.module[0].weight.clone()
    for _ in range(2):
        update(batch)
    assert (policy.module[0].weight - before).abs().max() > 1e-3
    want_policy, want_critic = copied(theirs.policy, space)
    torch.testing.assert_close(policy.module.state_dict(), want_policy.module.state_dict(), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(critic.module.state_dict(), want_critic.module.state_dict(), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(temperature.module[0].detach(), theirs.log_ent_coef.detach()[0], atol=2e-5, rtol=1e-4)
    theirs.policy.critic = theirs.critic_target
    _, want_target = copied(theirs.policy, space)
    got_target = critic.at("target").module.state_dict()
    torch.testing.assert_close(got_target, want_target.module.state_dict(), atol=2e-5, rtol=1e-4)


def test_micro_batches_see_the_same_draws() -> None:
    envs = Envs(Aim, 8)
    policy = ControlPolicy.scratch(envs, squashed=True, hidden=(8,))
    rows = transitions(policy.sample(range(8), env=envs, sampling=Steps(1), seed=0))
    rows = rows.with_tensors(noise=torch.randn(8, 1, 1, generator=torch.Generator().manual_seed(0)))

    def worth(observations: torch.Tensor, actions: torch.Tensor, logps: torch.Tensor) -> torch.Tensor:
        return torch.stack([-(actions - observations).square().sum(-1), logps], -1)

    term = Term(rows, partial(sac_actor, alpha=0.1), want=(Reparameterised(worth),))
    whole, parts = (Learner(policy, micro_batch=m).grads(term) for m in (None, 3))
    assert whole.keys() == parts.keys()
    for name, g in whole.items():
        torch.testing.assert_close(parts[name], g)
    assert any(g.abs().sum() > 0 for g in whole.values())
    with pytest.raises(ValueError, match="squashed=True"):
        ControlPolicy.scratch(envs).evaluate(rows, term.want)


def test_log_probs_of_squashed_actions_are_torchs() -> None:
    from torch.distributions import Independent, Normal, TanhTransform, TransformedDistribution

    envs = Envs(Aim, 6)
    policy = ControlPolicy.scratch(envs, squashed=True, hidden=(8,))
    rollout = policy.sample(range(6), env=envs, sampling=Steps(1), seed=0)
    with torch.no_grad():
        mean, log_std = policy.module(rollout.inputs["observations"][:, 0]).chunk(2, -1)
    own = TransformedDistribution(Independent(Normal(mean, log_std.exp()), 1), [TanhTransform()])
    actions = rollout.inputs["actions"][:, 0]
    torch.testing.assert_close(rollout["old_logps"][:, 0], own.log_prob(actions), atol=1e-4, rtol=1e-4)
    assert (actions.abs() < 1).all()
    np.testing.assert_allclose(policy.actions.to_env(actions), 2 * actions.numpy(), rtol=1e-6)


def mean_reward(policy: ControlPolicy) -> float:
    envs = Envs(Aim, 64)
    rollout = policy.sample(range(64), env=envs, sampling=Steps(1, fresh=True, greedy=True), seed=0)
    return float(rollout["env_rewards"].mean())


def test_sac_learns_what_to_do() -> None:
    envs, replay = Envs(Aim, 4, seed=0), Replay(2000, seed=0)
    policy = ControlPolicy.scratch(envs, squashed=True, hidden=(32,), seed=0)
    critic = ControlQ.scratch(envs, hidden=(32,), seed=1)
    update = sac(Learner(policy, lr=3e-3), Learner(critic, lr=3e-3), Learner(Temperature(0.1), lr=3e-3), seed=0)
    before = mean_reward(policy)
    for _ in replayed(policy, envs, replay, update, steps=1600, batch=64, begin=100, seed=0):
        pass
    assert mean_reward(policy) > max(-0.15, before + 0.2)


def test_iql_follows_the_better_half_of_random_data() -> None:
    """Data that are random on average; cloning them stays at random, and no Q is asked of an action beyond them."""
    envs = Envs(Aim, 400, seed=0)
    maker = ControlPolicy.scratch(envs, hidden=(8,), seed=5)
    rows = transitions(maker.sample(range(400), env=envs, sampling=Steps(1), seed=0))
    replay = Replay(400, seed=0)
    replay.add(rows.with_tensors(rewards=rows["env_rewards"]))
    policy = ControlPolicy.scratch(envs, hidden=(32,), seed=1)
    critic, states = ControlQ.scratch(envs, hidden=(32,), seed=2), ControlCritic.scratch(envs, hidden=(32,), seed=3)
    before = mean_reward(policy)
    update = iql(*(Learner(m, lr=3e-3) for m in (policy, critic, states)), beta=8.0, tau=0.8)
    for _ in range(400):
        found = update(replay.draw(128))
    assert mean_reward(policy) > max(-0.25, before + 0.1)
    assert found["td/loss"] < 0.05
