"""A path gradient through an episode: that of the same episode written out, at the states that were drawn."""

from __future__ import annotations

import pytest
import torch

from rewardkit.objectives.path import path_gradient
from rewardkit.policies.control import ControlPolicy, Envs, Steps, Unrolled
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.worlds.control import Control
from rewardkit.worlds.control.physics import advance, gold

WORLD = Control(episodes=3)


def test_it_is_the_gradient_of_the_episode_written_out() -> None:
    policy = WORLD.policy(hidden=(8,))
    rollout = policy.sample([0, 1, 2], env=WORLD.envs(3), sampling=Steps(5, fresh=True), seed=0)
    with torch.no_grad():
        policy.module.log_std.sub_(0.3)  # other weights than those that drew: the noise is what stays
    term = Term(rollout, path_gradient, want=(Unrolled(advance, gold),))
    found = Learner(policy).grads(term)
    total = torch.zeros(3)
    now = rollout.inputs["observations"][:, 0]
    for t in range(5):
        mean, log_std = policy.module(now).chunk(2, -1)
        noise = (rollout.inputs["actions"][:, t] - mean).detach() / log_std.exp().detach()
        action = mean + log_std.exp() * noise
        torch.testing.assert_close(action, rollout.inputs["actions"][:, t])
        after = advance(now, action)
        total, now = total + gold(now, action, after), after
    want = torch.autograd.grad(-total.mean(), [p for _, p in policy.module.named_parameters()])
    for (name, g), w in zip(found.items(), want, strict=True):
        torch.testing.assert_close(g, w, msg=name)
    torch.testing.assert_close(
        now[:, 0:2], torch.stack([torch.tensor(s.output.observations[-1, :2]) for s in rollout.samples])
    )
    with torch.no_grad():
        got = policy.evaluate(rollout, term.want)["path_value"]
    torch.testing.assert_close(got, WORLD.gold(rollout).outcome)


def test_discrete_actions_have_none() -> None:
    envs = Envs("CartPole-v1", 1)
    policy = ControlPolicy.scratch(envs)
    rollout = policy.sample([0], env=envs, sampling=Steps(3), seed=0)
    with pytest.raises(ValueError, match="Gaussian"):
        policy.evaluate(rollout, (Unrolled(advance, gold),))
