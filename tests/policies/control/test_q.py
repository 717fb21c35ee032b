"""Ensembles of Q networks: each member by itself, discrete and continuous actions, views."""

from __future__ import annotations

import pytest
import torch

from rewardkit.policies.control import ControlPolicy, ControlQ, Envs, Steps, q, transitions
from rewardkit.policies.control.q import Ensemble


def test_members_are_networks_of_their_own() -> None:
    net = Ensemble(3, (5, 4), 2, members=3, seed=1)
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    for k, found in enumerate(net(x).unbind(1)):
        y = x
        for i, (weight, bias) in enumerate(zip(net.weights, net.biases, strict=True)):
            y = (y if i == 0 else y.relu()) @ weight[k] + bias[k]
        torch.testing.assert_close(found, y)
    assert (net(x)[:, 0] - net(x)[:, 1]).abs().min() > 0


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
def test_q_is_that_of_the_action_taken(env: str) -> None:
    envs = Envs(env, 2)
    rows = transitions(ControlPolicy.scratch(envs).sample([0, 1], env=envs, sampling=Steps(4), seed=0))
    critic = ControlQ.scratch(envs, hidden=(8,))
    observations, actions = rows.inputs["observations"][:, 0], rows.inputs["actions"][:, 0]
    found = critic.evaluate(rows, (q,))["q"]
    assert found.shape == (8, 1, 2)
    if env == "CartPole-v1":
        want = critic.module(observations)[torch.arange(8), :, actions]
    else:
        want = critic.module(torch.cat([observations, actions], -1))[..., 0]
    torch.testing.assert_close(found[:, 0], want)
    torch.testing.assert_close(critic.of(observations, actions), want)
    with pytest.raises(KeyError, match="want="):
        critic.evaluate(rows, ("values",))  # type: ignore[arg-type]


def test_a_target_network_stays_where_it_was_kept() -> None:
    critic = ControlQ.scratch(Envs("Pendulum-v1"), hidden=(8,))
    target, x = critic.keep("target"), (torch.ones(1, 3), torch.ones(1, 1))
    before = target.of(*x)
    with torch.no_grad():
        critic.module.biases[-1].add_(1.0)
    torch.testing.assert_close(critic.at("target").of(*x), before)
    torch.testing.assert_close(critic.of(*x), before + 1)
