"""What recipes on world ``gaussians`` share: base policies, comparisons, reward models, training, figures."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any, Literal

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from rewardkit.credit.base import Rule
from rewardkit.credit.group import group_relative
from rewardkit.data.rows import attach, comparison_rows
from rewardkit.loops.online import Step, online
from rewardkit.loops.prompts import PromptSet
from rewardkit.objectives.base import Loss
from rewardkit.objectives.policy import clipped
from rewardkit.objectives.reward import bradley_terry
from rewardkit.papers.recipe import Run
from rewardkit.policies.diffusion import Denoise, DiffusionPolicy
from rewardkit.protocols import Reward
from rewardkit.rewards.learned.tensor import TensorReward
from rewardkit.training.fit import FitStep, fit
from rewardkit.training.learner import Learner
from rewardkit.types import Judgement, Rollout, Sample
from rewardkit.worlds.gaussians import Gaussians

WORLD, HOW = Gaussians(), Denoise(10)


def base(run: Run, kind: Literal["diffusion", "flow"] = "diffusion") -> DiffusionPolicy:
    """A policy of its own, with the world's cached base weights; what ``encode`` draws is the run's own too."""
    policy = copy.deepcopy(_base(kind, run.size(3000, 3)))
    policy.seed = run.seed
    return policy


@cache
def _base(kind: Literal["diffusion", "flow"], steps: int) -> DiffusionPolicy:
    return WORLD.base_policy(kind, steps=steps)


class Score(nn.Module):
    """A small network on a point and what it is told besides: its prompt, its time."""

    def __init__(self, told: int) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2 + told, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, points: Tensor, *told: Tensor) -> Tensor:
        return self.net(torch.cat([points, *(x[:, None].to(points) if x.ndim == 1 else x for x in told)], -1))


def made(seed: int, make: Callable[[], Any]) -> Any:
    """What ``make`` gives with torch's own generator at ``seed``, which is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def pairs(policy: DiffusionPolicy, n: int, seed: int, *, how: Denoise = HOW, noise: float = 0.25) -> list[Judgement]:
    """``n`` comparisons by the simulated annotators of points that the policy makes, prompts in equal numbers."""
    each = 2 * -(-n // len(WORLD.prompts))
    drawn = policy.sample(WORLD.prompts, each, sampling=how, seed=seed).samples
    return WORLD.compare(drawn[0::2], drawn[1::2], seed=seed, noise=noise)[:n]


def pairs_with_ties(
    policy: DiffusionPolicy, n: int, seed: int, *, how: Denoise = HOW, theta: float = 3.0, noise: float = 0.25
) -> list[Judgement]:
    """As :func:`pairs`, by annotators who may call two points equal: Rao and Kupper's model on gold."""
    each = 2 * -(-n // len(WORLD.prompts))
    drawn = policy.sample(WORLD.prompts, each, sampling=how, seed=seed)
    gold, chance = WORLD.gold(drawn).outcome, torch.Generator().manual_seed(seed)
    if gold is None:
        raise ValueError("gold is an outcome")
    gap, edge = (gold[0::2] - gold[1::2]) / noise, torch.tensor(theta).log()
    won, lost = torch.sigmoid(gap - edge), torch.sigmoid(-gap - edge)
    said = torch.multinomial(torch.stack([won, lost, 1 - won - lost], 1), 1, generator=chance)[:, 0]
    ranks = [((0, 1), (1, 0), (0, 0))[i] for i in said.tolist()]
    both = zip(drawn.samples[0::2], drawn.samples[1::2], ranks, strict=True)
    return [Judgement((a, b), rank=rank, annotator="simulated") for a, b, rank in both][:n]


def reward_model(
    judged: Sequence[Judgement], seed: int, objective: Callable[..., Loss] = bradley_terry, *, epochs: float = 6
) -> TensorReward:
    """A reward model on comparisons."""
    reward = made(seed, lambda: TensorReward(Score(len(WORLD.prompts)), condition=WORLD.condition))
    rows = comparison_rows(judged)
    data = attach(reward.encode(rows.samples), rows)
    for _ in fit(Learner(reward, lr=2e-3), data, objective, epochs=epochs, batch=64, seed=seed):
        pass
    return reward


def policy_gradient(
    policy: Any, reward: Reward, seed: int, *, lr: float, credit: Rule = group_relative, **options: Any
) -> Iterator[Step]:
    """PPO's loss on group-relative advantages in the one loop, two passes a batch, in place."""
    given: dict[str, Any] = {"reference": "start", "batch": len(WORLD.prompts), "n": 16, "inner": 2, "sampling": HOW}
    prompts = PromptSet(WORLD.prompts, seed=seed)
    given |= {"seed": seed} | options
    return online(Learner(policy, lr=lr), given.pop("prompts", prompts), reward, credit, clipped, **given)


def preferences(
    policy: DiffusionPolicy,
    judged: Sequence[Judgement],
    objective: Callable[..., Loss],
    seed: int,
    *,
    lr: float,
    epochs: float,
    batch: int = 64,
    encode: Callable[[list[Sample]], Rollout] | None = None,
    extra: Callable[[Rollout], Rollout] = lambda rollout: rollout,
) -> Iterator[FitStep]:
    """A preference objective against the start, in place, on draws that are made anew for every batch.

    Args:
        encode: default the policy's. extra: adds tensors that the objective reads.
    """
    learner = Learner(policy, lr=lr)

    def rows(units: list[Judgement]) -> Rollout:
        found = comparison_rows(units)
        encoded = attach((encode or policy.encode)(found.samples), found)
        return extra(learner.attach(encoded, policy.at("start")))

    return fit(learner, judged, objective, encode=rows, epochs=epochs, batch=batch, seed=seed)


def gold_of(policy: Any, n: int, seed: int, how: Denoise = HOW) -> float:
    """Mean gold reward of ``n`` points a prompt."""
    outcome = WORLD.gold(policy.sample(WORLD.prompts, n, sampling=how, seed=seed)).outcome
    return float("nan") if outcome is None else float(outcome.mean())


def gold_at(found: Tensor) -> float:
    """Mean gold reward of points ``[prompts, n, 2]``."""
    names = [p for p in WORLD.prompts for _ in range(found.shape[1])]
    return float(WORLD.gold.of(found.flatten(0, 1), names).mean())


def points(policy: Any, n: int, seed: int, how: Denoise = HOW) -> Tensor:
    """``n`` points a prompt: ``[prompts, n, 2]``."""
    drawn = policy.sample(WORLD.prompts, n, sampling=how, seed=seed).samples
    return torch.stack([s.output for s in drawn]).reshape(len(WORLD.prompts), n, 2)


def transport(a: Tensor, b: Tensor) -> float:
    """2-Wasserstein distance of two clouds of as many points, exact, a root mean square over prompts: ``[P, n, 2]``."""
    squares = []
    for x, y in zip(a.double(), b.double(), strict=True):
        apart = torch.cdist(x, y).square().numpy()
        squares.append(float(apart[linear_sum_assignment(apart)].mean()))
    return (sum(squares) / len(squares)) ** 0.5


def mmd(a: Tensor, b: Tensor, width: float = 0.5) -> float:
    """Squared maximum mean discrepancy under a Gaussian kernel, unbiased, a mean over prompts: ``[P, n, 2]``."""

    def kernel(x: Tensor, y: Tensor, own: bool) -> float:
        k = torch.exp(-0.5 * (torch.cdist(x, y) / width).square())
        return float((k.sum() - k.trace()) / (len(x) * (len(x) - 1))) if own else float(k.mean())

    found = [kernel(x, x, True) + kernel(y, y, True) - 2 * kernel(x, y, False) for x, y in zip(a, b, strict=True)]
    return sum(found) / len(found)


def preferred(policy: Any, start: Any, seed: int, *, n: int = 100, how: Denoise = HOW) -> float:
    """How often an annotator prefers a point to one of the start's, on ``n`` fresh pairs a prompt: for tuning."""
    new, old = (
        p.sample(WORLD.prompts, n, sampling=how, seed=20_000 + seed + i).samples for i, p in enumerate((policy, start))
    )
    judged = WORLD.compare(new, old, seed=30_000 + seed)
    return sum(j.rank == (0, 1) for j in judged) / len(judged)


def figures(run: Run, policy: DiffusionPolicy, *, how: Denoise = HOW) -> dict[str, float]:
    """Gold, spread and KL of the world, how often annotators prefer it to the start, and the gain in gold."""
    n = run.size(256, 4)
    found = WORLD.measure(policy, n=n, sampling=how)
    start = gold_of(policy.at("start"), n, 9, how)
    won = preferred(policy, policy.at("start"), run.seed, n=run.size(100, 2), how=how)
    return {**found, "gain": found["gold"] - start, "preferred": won}


@cache
def start_points(seed: int, smoke: bool, kind: Literal["diffusion", "flow"], how: Denoise = HOW) -> Tensor:
    """Points of the base policy to compare others with."""
    run = Run(seed, smoke)
    return points(base(run, kind), run.size(256, 4), 40_000 + seed, how)
