"""Parity with Stable-Baselines3: the gradients of PPO.train, step by step, are those of our three terms."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rewardkit.objectives.base import mean
from rewardkit.objectives.policy import clipped, entropy_bonus
from rewardkit.objectives.value import value_loss


def test_ppo_train_step() -> None:
    """R10, R57: six epochs of one minibatch, with a learning rate that drives ratios out of the clip range."""
    from stable_baselines3 import PPO

    ppo = PPO(
        "MlpPolicy",
        "CartPole-v1",
        n_steps=32,
        batch_size=32,
        n_epochs=6,
        learning_rate=0.3,
        clip_range=0.2,
        ent_coef=0.05,
        vf_coef=0.5,
        max_grad_norm=1e9,
        normalize_advantage=False,
        policy_kwargs={"net_arch": [8]},
        seed=0,
        device="cpu",
    )
    _, callback = ppo._setup_learn(32)
    ppo.collect_rollouts(ppo.env, callback, ppo.rollout_buffer, n_rollout_steps=32)
    data = next(ppo.rollout_buffer.get(None))
    weights = list(ppo.policy.parameters())
    column: Any = lambda x: x.reshape(-1, 1)
    clipped_steps = 0

    def ours() -> torch.Tensor:
        nonlocal clipped_steps
        values, logps, entropy = ppo.policy.evaluate_actions(data.observations, data.actions.long().flatten())
        mask = torch.ones(32, 1)
        gain = clipped(column(logps), column(data.old_log_prob), column(data.advantages), mask)
        clipped_steps += int((gain.metrics["clip_low"] + gain.metrics["clip_high"]).sum())
        return (
            mean(gain, mask, clipped)
            + mean(value_loss(values, column(data.returns)), mask, value_loss)
            + 0.05 * mean(entropy_bonus(column(entropy)), mask, entropy_bonus)
        )

    step, compared = ppo.policy.optimizer.step, 0

    def checked_step(*args: Any, **kwargs: Any) -> Any:
        nonlocal compared
        want = [w.grad.clone() for w in weights if w.grad is not None]
        got = torch.autograd.grad(ours(), [w for w in weights if w.grad is not None])
        for g, w in zip(got, want, strict=True):
            assert (g - w).norm() <= 1e-5 * max(float(w.norm()), 1e-3)
        compared += 1
        return step(*args, **kwargs)

    ppo.policy.optimizer.step = checked_step
    ppo.train()
    assert compared == 6
    assert clipped_steps > 0, "nothing was ever clipped: weak test"
    # ours is 0.5 * squared error a term, theirs the whole square times vf_coef
    assert ppo.vf_coef == pytest.approx(0.5)
