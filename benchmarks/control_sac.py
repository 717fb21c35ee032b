"""SAC on Pendulum beside Stable-Baselines3's, same hyper-parameters, one thread, both sides in one run.

Stable-Baselines3's defaults with the RL Zoo's learning rate: networks of 256 and 256, batches of 256, an update a step.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.control_ppo import Setting, compare
from rewardkit.data.replay import Replay
from rewardkit.loops.offpolicy import replayed, sac
from rewardkit.policies.control import ControlPolicy, ControlQ, Envs, Temperature
from rewardkit.training.learner import Learner

LR, GAMMA, RATE, BATCH, BEGIN = 1e-3, 0.99, 0.005, 256, 100


def ours(s: Setting, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """Train by ``sac`` in ``replayed``; the greedy actor on observations ``[N, ...]``."""
    envs, replay = Envs(s.env, 1, seed=seed), Replay(s.total, seed=seed)
    policy = ControlPolicy.scratch(envs, squashed=True, hidden=(256, 256), seed=seed)
    models = (policy, ControlQ.scratch(envs, seed=seed + 1), Temperature(1.0))
    adam: Any = partial(torch.optim.Adam, lr=LR)
    update = sac(*(Learner(m, optimizer=adam, clip=None) for m in models), gamma=GAMMA, rate=RATE, seed=seed)
    for _ in replayed(policy, envs, replay, update, steps=s.total, batch=BATCH, begin=BEGIN, seed=seed):
        pass
    return lambda x: policy.act(x)


def theirs(s: Setting, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """Train Stable-Baselines3's SAC."""
    from stable_baselines3 import SAC

    model = SAC(
        "MlpPolicy", s.env, learning_rate=LR, gamma=GAMMA, tau=RATE, batch_size=BATCH, learning_starts=BEGIN, seed=seed,
        device="cpu",
    )  # fmt: skip
    model.learn(s.total)
    return lambda x: model.predict(x, deterministic=True)[0]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5000)


def run(args: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Both sides, seed by seed in turns."""
    torch.set_num_threads(1)
    pendulum = Setting("Pendulum-v1", args.steps, copies=1, steps=1, batch=BATCH, epochs=1, gamma=GAMMA, lam=1.0)
    found = compare(pendulum, args.seeds, ours, theirs)
    print(f"share of the gain {found['share_of_gain']:.2f}, time {found['time_ratio']:.2f} of theirs")
    yield "control_sac", found
