"""Offline reinforcement learning from comparisons of pictures: a reward learned from a noisy labeller, then IQL.

World ``control``: 120 episodes, a fifth of them good and the rest wandering, come without any reward. A labeller in the
place of a vision-language model compares 2,000 pairs of 32x32 frames by progress: it cannot tell a fifth of them apart,
which are dropped, and answers a share of the others the wrong way round. A small network on frames is fitted by
Bradley-Terry, its scores are brought to mean 0 and deviation 1, every transition is relabelled, and implicit Q-learning
follows. Arms: cloning everything, cloning the best tenth by learned return, IQL on the learned reward at 10, 30 and 50%
of wrong answers, IQL on the true reward, and the trap, ties answered at random. Beta is chosen by annotators'
preference. Left out: a real vision-language model and its two-stage query, point clouds, ensembles, the robot.
"""

from __future__ import annotations

from functools import cache, partial

import torch

from rewardkit.data.rows import attach, comparison_rows
from rewardkit.loops.offpolicy import iql
from rewardkit.loops.relabel import relabelled
from rewardkit.objectives.imitation import sft
from rewardkit.objectives.reward import bradley_terry
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.policies.control import ControlCritic, ControlPolicy, ControlQ
from rewardkit.protocols import Model
from rewardkit.rewards.learned.image import ImageCnn
from rewardkit.rewards.learned.step import StepReward
from rewardkit.training.fit import fit
from rewardkit.training.learner import Learner
from rewardkit.types import Judgement, Sample
from rewardkit.worlds.control import Control, frames

WORLD = Control(48, shares={"expert": 0.2, "wanderer": 0.8})
SMALL = Control(3, shares=WORLD.shares)


def _data(run: Run) -> list[Sample]:
    return WORLD.demonstrations(run.size(120, 3), seed=500 + run.seed)


def _judged(run: Run, flips: float, ties: float, seed: int) -> list[Judgement]:
    """Pairs of frames, and what the labeller says of them."""
    frame = WORLD.segments(_data(run), run.size(4000, 20), length=1, seed=seed)
    return WORLD.compare(frame[0::2], frame[1::2], seed=seed, noise=1e-3, ties=ties, flips=flips)


@cache
def _reward(seed: int, smoke: bool, flips: float, guesses: bool) -> tuple[StepReward, float]:
    """The learned reward, and how often it is right on held-out pairs that were labelled without error."""
    run = Run(seed, smoke)
    judged = _judged(run, flips, 0.2, 10 + seed)
    if guesses:
        chance = torch.Generator().manual_seed(seed)
        coin = torch.randint(2, (len(judged),), generator=chance).tolist()
        judged = [Judgement(j.items, rank=(c, 1 - c)) if j.tied else j for j, c in zip(judged, coin, strict=True)]
    rows = comparison_rows(j for j in judged if not j.tied)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reward = StepReward(ImageCnn(frames, run.size(8, 2)))
        reward.evaluate(reward.encode(rows.samples[:2]))  # gives the lazy layer its shape
    data = attach(reward.encode(rows.samples), rows)
    for _ in fit(Learner(reward, lr=2e-3), data, bradley_terry, epochs=run.size(3, 0.1), batch=64, seed=seed):
        pass
    held = comparison_rows(_judged(run, 0.0, 0.2, 5000 + seed))
    with torch.no_grad():
        scores = reward.evaluate(reward.encode(held.samples))["scores"].reshape(-1, 2)
    rank = held.tensors["rank"].reshape(-1, 2)
    right = ((scores[:, 0] > scores[:, 1]) == (rank[:, 0] < rank[:, 1]))[rank[:, 0] != rank[:, 1]]
    return reward.standardise(_data(run)), float(right.double().mean())


def _figures(run: Run, policy: ControlPolicy) -> dict[str, float]:
    """Gold and success of the likeliest actions; how often annotators prefer an episode to one of the data."""
    mine = run.size(WORLD, SMALL).draw(policy, seed=run.seed, greedy=True).samples
    theirs = WORLD.demonstrations(len(mine), seed=9000 + run.seed)
    judged = WORLD.compare(mine, theirs, seed=run.seed, noise=3.0)
    found = run.size(WORLD, SMALL).measure(policy, n=1, greedy=True)
    preferred = sum(j.rank == (0, 1) for j in judged) / len(judged)
    return {"gold": found["gold"], "success": found["success"], "preferred": preferred}


def cloning(run: Run, share: float) -> dict[str, float]:
    """``sft`` on all episodes, or on the share with the largest learned return."""
    samples, policy = _data(run), WORLD.policy(seed=run.seed)
    if share < 1:
        reward, _ = _reward(run.seed, run.smoke, 0.1, False)
        returns = reward.evaluate(reward.encode(samples))["scores"]
        samples = [samples[i] for i in returns.topk(max(1, round(share * len(samples)))).indices.tolist()]
    replay = relabelled(samples, policy, WORLD.gold_steps, seed=run.seed).rows()
    epochs = run.size(700, 2) * 256 / len(replay)
    for _ in fit(Learner(policy, lr=1e-3), replay, sft, epochs=epochs, batch=min(256, len(replay)), seed=run.seed):
        pass
    return _figures(run, policy)


def offline(run: Run, flips: float | None = None, *, guesses: bool = False) -> dict[str, float]:
    """IQL on the learned reward, or on the true one."""
    samples, policy = _data(run), WORLD.policy(seed=run.seed)
    accuracy, reward = 1.0, WORLD.gold_steps
    if flips is not None:
        reward, accuracy = _reward(run.seed, run.smoke, flips, guesses)
    else:
        reward = StepReward(WORLD.gold.module).standardise(samples)
    envs, hidden = WORLD.envs(1), (64, 64)
    critic = ControlQ.scratch(envs, hidden=hidden, seed=run.seed)
    states = ControlCritic.scratch(envs, hidden=hidden, seed=run.seed)
    models: tuple[Model, ...] = (policy, critic, states)
    learners = [Learner(m, lr=1e-3) for m in models]
    update = iql(*learners, gamma=0.95, tau=0.8, beta=run.point.get("beta", 1.0), rate=0.01)
    replay = relabelled(samples, policy, reward, seed=run.seed)
    for _ in range(run.size(700, 2)):
        update(replay.draw(256))
    return {**_figures(run, policy), "accuracy": accuracy}


METHOD = "iql, learned, 10% wrong"

RECIPE = Recipe(
    slug="offline_rl_vlm_f",
    arms={
        METHOD: Arm(partial(offline, flips=0.1)),
        "iql, learned, 30% wrong": Arm(partial(offline, flips=0.3)),
        "iql, learned, 50% wrong": Arm(partial(offline, flips=0.5)),
        "iql, ties guessed": Arm(partial(offline, flips=0.1, guesses=True)),
        "iql, true reward": Arm(offline),
        "bc": Arm(partial(cloning, share=1.0), tuned=False),
        "bc, best tenth": Arm(partial(cloning, share=0.1), tuned=False),
    },
    expectations=[
        Expect("IQL on the learned reward has more gold than cloning", "gold", METHOD, "bc", low=0),
        Expect("and more than cloning the best tenth", "gold", METHOD, "bc, best tenth", low=0),
        Expect("but no more than IQL on the true reward, to 1", "gold", METHOD, "iql, true reward", high=1),
        Expect("30% wrong answers leave it above cloning", "gold", "iql, learned, 30% wrong", "bc", low=0),
        Expect("30% wrong answers are no better than 10%, to 1", "gold", "iql, learned, 30% wrong", METHOD, high=1),
        Expect("50% wrong answers leave cloning's gold, to 3", "gold", "iql, learned, 50% wrong", "bc", low=-3, high=3),
        Expect("dropping ties gives a better reward than guessing", "accuracy", METHOD, "iql, ties guessed", low=0),
    ],
    grid=({"beta": 1.0}, {"beta": 3.0}),
    tune="preferred",
    seeds=range(3),
    scale="a point mass and 32x32 frames, 120 episodes, 2,000 simulated comparisons",
)
