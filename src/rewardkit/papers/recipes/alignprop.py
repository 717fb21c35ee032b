"""AlignProp: a reward's own gradient through the sampler, against policy gradient and weighted regression.

World ``gaussians``, diffusion, 10 steps; every method is paid 6,400 rewards. AlignProp is ``rounds`` with
``path_gradient``: the gradient flows through the last K steps, K drawn from 1 to 10 for each batch, each step
checkpointed. Baselines: DDPO (``online`` with ``clipped``) and reward-weighted regression (``rounds`` with weighted
``sft``). Ablations: K = 1 (which is ReFL and DRaFT-1) and the whole chain. Measured: reward by queries, the energy of
the points (minus the log-density of the demonstrations) where training has gone half the way to the largest reward,
bytes kept for the way back with and without checkpoints, and the interpolation of the trained weights towards their
start, which is the paper's scaling of LoRA (there is none here: the network has 50,000 weights). The reward is the
world's own differentiable one, as the paper's aesthetic score is; the learning rate is chosen by annotators'
preference. Left out: images, LoRA, CLIP rewards, and K = 0, which trains nothing. About four minutes on two cores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rewardkit.loops.rounds import rounds
from rewardkit.merging.linear import lerp
from rewardkit.needs import Column
from rewardkit.objectives.imitation import sft
from rewardkit.objectives.path import path_gradient
from rewardkit.papers.gaussians import HOW, WORLD, base, figures, policy_gradient
from rewardkit.papers.recipe import Arm, Expect, Recipe, Run
from rewardkit.policies.diffusion import DiffusionPolicy, PathValue
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Rollout, Sample

QUERIES = 6400


def value(points: Tensor, samples: Sequence[Sample]) -> Tensor:
    """The reward, with gradients."""
    return WORLD.gold.of(points, [str(s.asked) for s in samples])


def measured(policy: DiffusionPolicy, n: int) -> tuple[float, float]:
    """Mean reward, and energy: minus the log-density of the demonstrations, nats a point."""
    drawn = policy.sample(WORLD.prompts, n, sampling=HOW, seed=77).samples
    points = torch.stack([s.output for s in drawn])
    logs = [WORLD.data[p].log_prob(points[i * n : (i + 1) * n]) for i, p in enumerate(WORLD.prompts)]
    return float(value(points, drawn).mean()), -float(torch.cat(logs).mean())


def trained(run: Run, policy: DiffusionPolicy, turns: Iterable[Any], paid: int) -> dict[str, Any]:
    """Run the turns, each of which paid ``paid`` rewards, and measure on the way."""
    n, every = run.size(64, 2), max(1, run.size(QUERIES, paid) // paid // 20)
    curve = [measured(policy, n)]
    curve += [measured(policy, n) for i, _ in enumerate(turns, 1) if i % every == 0]
    rewards, energies = (np.asarray(x) for x in zip(*curve, strict=True))
    half, at = rewards[0] / 2, int(np.argmax(rewards >= rewards[0] / 2))
    found = float("nan")
    if at > 0:  # reward at most 0: half of the start's is half the way
        found = float(np.interp(half, rewards[at - 1 : at + 1], energies[at - 1 : at + 1]))
    spent = np.arange(len(curve)) * every * paid
    return {
        **figures(run, policy),
        "reward": float(rewards[-1]),
        "early": float(np.interp(QUERIES / 5, spent, rewards)),
        "energy": found,
        "reward by queries": rewards.tolist(),
        "energy by queries": energies.tolist(),
    }


def by_rounds(
    run: Run, collect: Callable[[Any, int], Rollout], terms: Callable[[Rollout], list[Term]], paid: int
) -> tuple[DiffusionPolicy, dict[str, Any]]:
    """One step on each batch of what the policy draws."""
    policy = base(run)
    learner = Learner(policy, lr=run.point.get("lr", 3e-4))
    turns = rounds(
        learner, collect, terms=terms, reference=None, rounds=run.size(QUERIES // paid, 1), batch=paid, seed=run.seed
    )
    return policy, trained(run, policy, turns, paid)


def alignprop(run: Run, last: int | None = None) -> dict[str, Any]:
    """Backpropagation through the last steps; ``None``: a random number of them for each batch."""
    each = run.size(8, 1)
    chance = np.random.default_rng(run.seed)

    def draw(policy: DiffusionPolicy, turn: int) -> Rollout:
        return policy.sample(WORLD.prompts, each, sampling=HOW, seed=run.seed * 10_007 + turn)

    def terms(rollout: Rollout) -> list[Term]:
        steps = int(chance.integers(1, HOW.steps + 1)) if last is None else last
        return [Term(rollout, path_gradient, want=(PathValue(value, steps, checkpoint=True),))]

    policy, found = by_rounds(run, draw, terms, each * len(WORLD.prompts))
    return {**found, **interpolated(run, policy), "kept": kept(policy, draw(policy, 0))}


def interpolated(run: Run, policy: DiffusionPolicy) -> dict[str, Any]:
    """Reward and energy between the start's weights and the trained ones, which are put back."""
    start, end = ({k: v.clone() for k, v in p.module.state_dict().items()} for p in (policy.at("start"), policy))
    curve = []
    for w in (0.0, 0.5, 1.0):
        policy.module.load_state_dict(lerp(start, end, w))
        curve.append(measured(policy, run.size(256, 2)))
    return {"energy_half": curve[1][1], "energy_full": curve[2][1], "reward_half": curve[1][0]}


def kept(policy: DiffusionPolicy, rollout: Rollout) -> float:
    """Bytes at the worst moment of the way back with checkpoints (their own and one step's), over those without."""

    def held(steps: int, checkpoint: bool) -> int:
        sizes: dict[int, int] = {p.data_ptr(): 0 for p in policy.module.parameters()}

        def pack(x: Tensor) -> Tensor:
            sizes.setdefault(x.data_ptr(), x.numel() * x.element_size())
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            policy.evaluate(rollout, want=(PathValue(value, steps, checkpoint),))
        return sum(sizes.values())

    return (held(HOW.steps, True) + held(1, False)) / held(HOW.steps, False)


def ddpo(run: Run) -> dict[str, Any]:
    """Policy gradient on the steps' log-probs."""
    policy, n = base(run), run.size(16, 2)
    paid = n * len(WORLD.prompts)
    turns = policy_gradient(
        policy, WORLD.gold, run.seed, lr=run.point.get("lr", 3e-4), n=n, steps=run.size(QUERIES // paid, 1)
    )
    return trained(run, policy, turns, paid)


def weighted(run: Run) -> dict[str, Any]:
    """Denoising the policy's own points, weighted by ``exp(reward / 0.2)`` within each prompt."""
    each = run.size(16, 2)

    def draw(policy: DiffusionPolicy, turn: int) -> Rollout:
        drawn = policy.sample(WORLD.prompts, each, sampling=HOW, seed=run.seed * 10_007 + turn)
        reward = value(torch.stack([s.output for s in drawn.samples]), drawn.samples).reshape(-1, each)
        return policy.encode(drawn.samples).with_tensors(weight=(reward / 0.2).softmax(1).flatten() * each)

    weight = partial(sft, weight=Column("weight"))
    return by_rounds(run, draw, lambda rollout: [Term(rollout, weight)], each * len(WORLD.prompts))[1]


def or_nothing(run: Run, arm: Callable[..., dict[str, Any]], **options: Any) -> dict[str, Any]:
    """The arm's figures; none where training diverges, which the last step alone does at the largest learning rate."""
    try:
        return arm(run, **options)
    except FloatingPointError:
        names = ("preferred", "reward", "early", "energy", "kept", "energy_half", "energy_full")
        return dict.fromkeys(names, float("nan"))


RECIPE = Recipe(
    slug="alignprop",
    arms={
        "alignprop": Arm(partial(or_nothing, arm=alignprop)),
        "last step only": Arm(partial(or_nothing, arm=alignprop, last=1)),
        "whole chain": Arm(partial(or_nothing, arm=alignprop, last=HOW.steps)),
        "ddpo": Arm(partial(or_nothing, arm=ddpo)),
        "weighted regression": Arm(partial(or_nothing, arm=weighted)),
    },
    expectations=[
        Expect("a fifth of the queries reaches DDPO's final reward", "early", "alignprop", "ddpo", low=0,
               over_figure="reward"),
        Expect("a fifth of the queries reaches weighted regression's", "early", "alignprop", "weighted regression",
               low=0, over_figure="reward"),
        Expect("K=1 leaves the data further behind at equal reward", "energy", "last step only", "alignprop", low=0),
        Expect("and further than the whole chain does", "energy", "last step only", "whole chain", low=0),
        Expect("checkpoints halve what is kept", "kept", "alignprop", high=0.5),
        Expect("half the way back to the start is nearer the data", "energy_half", "alignprop", "alignprop", high=0,
               over_figure="energy_full"),
    ],
    grid=({"lr": 1e-4}, {"lr": 3e-4}, {"lr": 1e-3}),
    tune="preferred",
    scale="points in the plane and a network of 50,000 weights, 6,400 rewards an arm",
)  # fmt: skip
