"""PPO on CartPole and Pendulum beside Stable-Baselines3's, same hyper-parameters, one thread, both sides in one run.

Settings are those of the RL Zoo without gSDE, schedules of the clip range and observation normalisation.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import torch

from rewardkit.credit.base import chain
from rewardkit.credit.group import whiten
from rewardkit.credit.returns import gae
from rewardkit.loops.online import online
from rewardkit.loops.prompts import PromptSet
from rewardkit.objectives.policy import clipped
from rewardkit.policies.control import ControlPolicy, Envs, Steps
from rewardkit.rewards.rules.environment import Environment
from rewardkit.training.learner import Learner

EPISODES = 20


@dataclass(frozen=True)
class Setting:
    """Hyper-parameters of PPO on one environment."""

    env: str
    total: int
    copies: int
    steps: int
    batch: int
    epochs: int
    gamma: float
    lam: float
    lr: float = 1e-3
    linear: bool = False
    clip: float = 0.2
    clip_norm: float = 0.5

    @property
    def turns(self) -> int:
        """Rollouts; the last one may pass ``total``, as Stable-Baselines3's does."""
        return -(-self.total // (self.copies * self.steps))


SETTINGS = (
    Setting("CartPole-v1", 25_000, copies=8, steps=32, batch=256, epochs=20, gamma=0.98, lam=0.8, linear=True),
    Setting("Pendulum-v1", 100_000, copies=4, steps=1024, batch=64, epochs=10, gamma=0.9, lam=0.95),
)


def ours(s: Setting, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """Train with the online loop; the greedy actor on observations ``[N, ...]``."""
    envs = Envs(s.env, s.copies, seed=seed)
    policy = ControlPolicy.scratch(envs, critic=True, seed=seed)
    adam = partial(torch.optim.Adam, lr=s.lr, eps=1e-5, fused=True)
    updates = s.turns * s.epochs * -(-s.copies * s.steps // s.batch)
    options: dict[str, Any] = {"optimizer": adam, "clip": s.clip_norm}
    options |= {"schedule": "linear", "total_steps": updates} if s.linear else {}
    learner = Learner(policy, **options)
    run = online(
        learner, PromptSet(range(s.copies), shuffle=False), Environment(),
        chain(partial(gae, gamma=s.gamma, lam=s.lam), whiten), partial(clipped, low=s.clip, high=s.clip),
        critic=learner, reference=None, env=envs,
        sampling=Steps(s.steps), batch=s.copies, n=1, inner=s.epochs, minibatch=s.batch, rows="steps", steps=s.turns,
        seed=seed,
    )  # fmt: skip
    for _ in run:
        pass
    return lambda x: policy.act(x)


def theirs(s: Setting, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """Train Stable-Baselines3's PPO."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    model = PPO(
        "MlpPolicy", make_vec_env(s.env, s.copies, seed=seed), n_steps=s.steps, batch_size=s.batch, n_epochs=s.epochs,
        gamma=s.gamma, gae_lambda=s.lam, learning_rate=(lambda left: left * s.lr) if s.linear else s.lr,
        clip_range=s.clip, max_grad_norm=s.clip_norm, ent_coef=0.0, seed=seed, device="cpu",
    )  # fmt: skip
    model.learn(s.total)
    return lambda x: model.predict(x, deterministic=True)[0]


def random_actor(s: Setting, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """What the distance of both is measured from."""
    space = gymnasium.make(s.env).action_space
    space.seed(seed)
    return lambda x: np.stack([space.sample() for _ in x])


def returns(s: Setting, act: Callable[[np.ndarray], np.ndarray]) -> float:
    """The mean return of whole episodes from fixed seeds."""
    envs = Envs(s.env, EPISODES)
    seen = envs.reset(seeds=[10_000 + i for i in range(EPISODES)])
    total, running = np.zeros(EPISODES), np.ones(EPISODES, dtype=bool)
    while running.any():
        seen, paid, terminated, truncated = envs.step(act(seen))
        total += paid * running
        over = terminated | truncated
        running &= ~over
        if over.any() and running.any():
            seen = envs.reset(over)
    return float(total.mean())


Train = Callable[[Setting, int], Callable[[np.ndarray], np.ndarray]]


def compare(s: Setting, seeds: int, ours: Train = ours, theirs: Train = theirs) -> dict[str, Any]:
    """Both sides, seed by seed in turns, on this machine now."""
    found: dict[str, list[float]] = {"ours": [], "theirs": [], "ours_seconds": [], "theirs_seconds": []}
    for seed in range(seeds):
        for name, train in (("ours", ours), ("theirs", theirs)):
            begin = time.perf_counter()
            act = train(s, seed)
            found[f"{name}_seconds"].append(time.perf_counter() - begin)
            found[name].append(returns(s, act))
            print(
                f"  {s.env} seed {seed} {name:6} {found[name][-1]:8.1f}  {found[f'{name}_seconds'][-1]:6.1f} s",
                flush=True,
            )
    means = {k: statistics.fmean(v) for k, v in found.items()}
    low = statistics.fmean(returns(s, random_actor(s, seed)) for seed in range(seeds))
    return {
        "env": s.env, "steps": s.total, "seeds": seeds, "random": low, **means,
        "share_of_gain": (means["ours"] - low) / (means["theirs"] - low),
        "time_ratio": means["ours_seconds"] / means["theirs_seconds"], "each": found,
    }  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--env", choices=[s.env for s in SETTINGS], action="append")


def run(args: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every setting; ratios above 0.9 of the gain and at most 1 of the time are what is asked."""
    torch.set_num_threads(1)
    for s in SETTINGS:
        if args.env and s.env not in args.env:
            continue
        for train in (ours, theirs):
            train(replace(s, total=s.copies * s.steps), 0)  # both import, allocate and choose kernels at first use
        r = compare(s, args.seeds)
        print(
            f"{r['env']}: ours {r['ours']:.1f}, Stable-Baselines3 {r['theirs']:.1f}, random {r['random']:.1f}; "
            f"share of the gain {r['share_of_gain']:.2f}, time {r['time_ratio']:.2f} of theirs"
        )
        yield f"control_ppo_{s.env.split('-')[0].lower()}", r
