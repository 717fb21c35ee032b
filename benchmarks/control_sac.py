"""SAC on Pendulum beside Stable-Baselines3's, same hyper-parameters, one thread, both sides in one run.

Stable-Baselines3's defaults with the RL Zoo's learning rate: networks of 256 and 256, batches of 256, an update a step.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.control_ppo import Setting, random_actor, returns
from rewardkit.data.replay import Replay
from rewardkit.loops.offpolicy import replayed, sac
from rewardkit.policies.control import ControlPolicy, ControlQ, Envs, Temperature
from rewardkit.training.learner import Learner

LR, GAMMA, RATE, BATCH, BEGIN = 1e-3, 0.99, 0.005, 256, 100


def ours(env: str, steps: int, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """Train by ``sac`` in ``replayed``; the greedy actor on observations ``[N, ...]``."""
    envs, replay = Envs(env, 1, seed=seed), Replay(steps, seed=seed)
    policy = ControlPolicy.scratch(envs, squashed=True, hidden=(256, 256), seed=seed)
    models = (policy, ControlQ.scratch(envs, seed=seed + 1), Temperature(1.0))
    adam: Any = partial(torch.optim.Adam, lr=LR)
    update = sac(*(Learner(m, optimizer=adam, clip=None) for m in models), gamma=GAMMA, rate=RATE, seed=seed)
    for _ in replayed(policy, envs, replay, update, steps=steps, batch=BATCH, begin=BEGIN, seed=seed):
        pass
    return lambda x: policy.act(x)


def theirs(env: str, steps: int, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """Train Stable-Baselines3's SAC."""
    from stable_baselines3 import SAC

    model = SAC(
        "MlpPolicy", env, learning_rate=LR, gamma=GAMMA, tau=RATE, batch_size=BATCH, learning_starts=BEGIN, seed=seed,
        device="cpu",
    )  # fmt: skip
    model.learn(steps)
    return lambda x: model.predict(x, deterministic=True)[0]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5000)


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Both sides, seed by seed in turns."""
    torch.set_num_threads(1)
    pendulum = Setting("Pendulum-v1", args.steps, copies=1, steps=1, batch=BATCH, epochs=1, gamma=GAMMA, lam=1.0)
    found: dict[str, list[float]] = {"ours": [], "theirs": [], "ours_seconds": [], "theirs_seconds": []}
    for seed in range(args.seeds):
        for name, train in (("ours", ours), ("theirs", theirs)):
            begin = time.perf_counter()
            act = train(pendulum.env, args.steps, seed)
            found[f"{name}_seconds"].append(time.perf_counter() - begin)
            found[name].append(returns(pendulum, act))
            print(f"  seed {seed} {name:6} {found[name][-1]:8.1f}  {found[f'{name}_seconds'][-1]:6.1f} s", flush=True)
    means = {k: statistics.fmean(v) for k, v in found.items()}
    low = statistics.fmean(returns(pendulum, random_actor(pendulum, seed)) for seed in range(args.seeds))
    ratio, share = means["ours_seconds"] / means["theirs_seconds"], (means["ours"] - low) / (means["theirs"] - low)
    print(f"share of the gain {share:.2f}, time {ratio:.2f} of theirs")
    about = {"env": pendulum.env, "steps": args.steps, "seeds": args.seeds, "random": low}
    return {**about, **means, "share_of_gain": share, "time_ratio": ratio, "each": found}
