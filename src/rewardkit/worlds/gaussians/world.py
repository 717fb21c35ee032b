"""World ``gaussians``: points in the plane, where the optimum of every regularised objective is known exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rewardkit.measures.masked import masked_sum
from rewardkit.objectives.imitation import sft
from rewardkit.policies.diffusion import Denoise, Diffusion, DiffusionPolicy, Flow, PointNet, Process
from rewardkit.registry import entry
from rewardkit.rewards.base import RewardBase
from rewardkit.training.learner import Learner
from rewardkit.training.term import Term
from rewardkit.types import Judgement, Rollout, Sample, Scores
from rewardkit.worlds.annotators import bradley_terry
from rewardkit.worlds.cache import cached, made_by
from rewardkit.worlds.gaussians.mixture import Mixture, ring

Kind = Literal["diffusion", "flow"]

SHARPNESS = 0.5
"""Of the gold reward: minus half of it is paid for each unit of squared distance."""


class Nearness(RewardBase):
    """Gold: ``-SHARPNESS / 2 * |x - centre|**2`` with a centre for each prompt."""

    name, differentiable = "gold", True

    def __init__(self, centres: Mapping[str, Tensor]) -> None:
        self.centres = centres

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        points = torch.stack([s.output for s in rollout.samples])
        return Scores(self.of(points, [str(s.asked) for s in rollout.samples]).to(rollout.mask.device))

    def of(self, points: Tensor, prompts: Sequence[str]) -> Tensor:
        """``[N, 2]`` to ``[N]``, with gradients."""
        centres = torch.stack([self.centres[p] for p in prompts]).to(points)
        return -0.5 * SHARPNESS * (points - centres).square().sum(-1)


@entry("worlds:gaussians", tags=("diffusion", "flow", "exact"))
class Gaussians:
    """Prompts are letters; each has a mixture of three Gaussians that demonstrations come from, and a gold centre.

    The optimum of ``E[gold] - beta KL(policy || demonstrations)`` is a mixture again, see :meth:`regularised`.

    Args:
        prompts: how many. seed: of everything.

    >>> world = Gaussians(2)
    >>> world.demonstrations(4, seed=0)[0].output.shape
    torch.Size([2])
    >>> best, gold, kl = world.regularised("A", beta=0.5)
    >>> bool(gold > world.data["A"].quadratic(world.gold.centres["A"], 0.5)), bool(kl > 0)
    (True, True)
    """

    def __init__(self, prompts: int = 4, seed: int = 0) -> None:
        self.prompts = [chr(ord("A") + i) for i in range(prompts)]
        self.seed = seed
        chance = torch.Generator().manual_seed(seed)
        turns = torch.rand(prompts, generator=chance, dtype=torch.float64) * 2 * math.pi
        aims = torch.rand(prompts, generator=chance, dtype=torch.float64) * 2 * math.pi
        self.data = {
            p: ring(3, radius=1.5, spread=0.35, turn=float(t)) for p, t in zip(self.prompts, turns, strict=True)
        }
        self.gold = Nearness(
            {p: torch.stack([a.cos(), a.sin()]).float() for p, a in zip(self.prompts, aims, strict=True)}
        )

    def regularised(self, prompt: str, beta: float) -> tuple[Mixture, float, float]:
        """The optimum of ``E[gold] - beta KL`` for a prompt, with its gold reward and its KL in nats."""
        centre, data = self.gold.centres[prompt], self.data[prompt]
        best, log_z = data.tilted(centre, SHARPNESS / beta)
        gold = best.quadratic(centre, SHARPNESS)
        return best, gold, gold / beta - log_z

    def demonstrations(self, n: int, seed: int) -> list[Sample]:
        """``n`` points, prompts in turn."""
        chance = torch.Generator().manual_seed(seed)
        each = math.ceil(n / len(self.prompts))
        drawn = {p: self.data[p].sample(each, chance) for p in self.prompts}
        turns = [(self.prompts[i % len(self.prompts)], i // len(self.prompts)) for i in range(n)]
        return [Sample(prompt, drawn[prompt][k]) for prompt, k in turns]

    def compare(
        self, first: Sequence[Sample], second: Sequence[Sample], *, seed: int, noise: float = 0.25
    ) -> list[Judgement]:
        """Simulated annotators: Bradley-Terry on gold, ``noise`` reward units a nat."""
        return bradley_terry(first, second, (self._gold(first) - self._gold(second)) / noise, seed=seed)

    def _gold(self, samples: Sequence[Sample]) -> Tensor:
        return self.gold.of(torch.stack([s.output for s in samples]), [str(s.asked) for s in samples])

    def condition(self, prompt: Any) -> Tensor:
        """A prompt as one of ``len(prompts)``; zeros for no prompt.

        Raises:
            KeyError: for a prompt that this world has not.
        """
        found = torch.zeros(len(self.prompts))
        if prompt is not None:
            if prompt not in self.prompts:
                raise KeyError(f"world gaussians has the prompts {self.prompts}, not {prompt!r}")
            found[self.prompts.index(prompt)] = 1.0
        return found

    def policy(self, kind: Kind = "diffusion", *, seed: int = 0) -> DiffusionPolicy:
        """An untrained policy."""
        process: Process = Diffusion.cosine(100) if kind == "diffusion" else Flow()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = PointNet(2, len(self.prompts), scale=100.0 if kind == "diffusion" else 1.0)
        return DiffusionPolicy(net, process, (2,), condition=self.condition, seed=seed)

    def base_policy(self, kind: Kind = "diffusion", *, steps: int = 3000, seed: int = 0) -> DiffusionPolicy:
        """A policy trained on demonstrations by denoising, its view ``start`` kept; built once into the cache."""
        facts: dict[str, Any] = {"kind": kind, "world": [len(self.prompts), self.seed], "steps": steps, "seed": seed}
        facts |= made_by(Path(__file__))

        def make(folder: Path) -> None:
            policy = self._train(kind, steps, seed)
            save_file(dict(policy.module.state_dict()), folder / "model.safetensors")

        folder = cached("gaussians", facts, make)
        policy = self.policy(kind, seed=seed)
        policy.module.load_state_dict(load_file(folder / "model.safetensors"))
        policy.keep("start")
        return policy

    def _train(self, kind: Kind, steps: int, seed: int) -> DiffusionPolicy:
        policy = self.policy(kind, seed=seed)
        learner = Learner(policy, lr=2e-3, schedule="cosine", warmup=0.05, total_steps=steps)
        for step in range(steps):
            learner.step(Term(policy.encode(self.demonstrations(64, seed=seed * 1_000_003 + step)), sft))
        return policy

    @torch.no_grad()
    def measure(
        self, policy: DiffusionPolicy, *, n: int = 256, sampling: Denoise | None = None, seed: int = 9
    ) -> dict[str, float]:
        """Figures on ``n`` points a prompt.

        Returns:
            ``gold``, ``gold_sd``, ``spread`` (root of the trace of the covariance, a mean over prompts), and ``kl`` to
            the start in nats over whole paths, which bounds that of the points.
        """
        rollout = policy.sample(self.prompts, n, sampling=sampling, seed=seed)
        start = policy.at("start").evaluate(rollout)["logps"]
        gold = self._gold(rollout.samples)
        points = torch.stack([s.output for s in rollout.samples]).reshape(len(self.prompts), n, 2)
        return {
            "gold": float(gold.mean()),
            "gold_sd": float(gold.std()),
            "spread": float(points.var(1).sum(-1).sqrt().mean()),
            "kl": float(masked_sum(rollout["old_logps"] - start, rollout.mask).mean()),
        }
