"""World ``control``: demonstrations of mixed quality, annotators of segments, a base policy, figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rewardkit.measures.masked import masked_sum
from rewardkit.policies.control import ControlPolicy, Steps
from rewardkit.policies.control.pieces import Trajectory
from rewardkit.registry import entry
from rewardkit.rewards.learned.step import StepReward
from rewardkit.types import Judgement, Rollout, Sample
from rewardkit.worlds.annotators import first_wins
from rewardkit.worlds.cache import cached, made_by
from rewardkit.worlds.clones import imitate
from rewardkit.worlds.control.envs import PointEnvs
from rewardkit.worlds.control.physics import DRAG, HAZARD, HORIZON, NEAR, PUSH, advance, distance, gold, start

QUALITY = {"expert": 0.2, "straight": 0.4, "wanderer": 0.4}
"""Shares of the demonstrators: one goes round the hazard, one straight through it, one wherever it likes."""


class Gold(nn.Module):
    """:func:`rewardkit.worlds.control.physics.gold` as a module."""

    def forward(self, before: Tensor, actions: Tensor, after: Tensor) -> Tensor:
        return gold(before, actions, after)


@entry("worlds:control", tags=("control", "gymnasium", "differentiable"))
class Control:
    """A point with inertia, a goal, a hazard between them. Prompts are the seeds of episodes; tasks take turns.

    Args:
        episodes: prompts. shares: of the demonstrators, by name, see :data:`QUALITY`. seed: of the base policy.

    >>> world = Control(episodes=6)
    >>> world.demonstrations(3, seed=0)[0].output.observations.shape
    (25, 6)
    >>> world.prompts
    [0, 1, 2, 3, 4, 5]
    """

    sampling = Steps(HORIZON, fresh=True)

    def __init__(self, episodes: int = 48, *, shares: dict[str, float] | None = None, seed: int = 0) -> None:
        self.prompts, self.shares, self.seed = list(range(episodes)), shares or QUALITY, seed
        self.gold, self.gold_steps = (StepReward(Gold(), dense=dense, name="gold") for dense in (False, True))

    def envs(self, copies: int, *, seed: int = 0) -> PointEnvs:
        """Copies of the environment."""
        return PointEnvs(copies, seed=seed)

    def draw(self, policy: ControlPolicy, n: int = 1, *, seed: int, greedy: bool = False) -> Rollout:
        """``n`` whole episodes of each prompt."""
        how = Steps(HORIZON, fresh=True, greedy=greedy)
        return policy.sample(self.prompts, n, env=self.envs(len(self.prompts) * n), sampling=how, seed=seed)

    @torch.no_grad()
    def demonstrations(self, n: int, seed: int) -> list[Sample]:
        """``n`` episodes; ``hidden["quality"]`` names the demonstrator."""
        rng = np.random.default_rng(seed)
        chance = torch.Generator().manual_seed(seed)
        who = rng.choice(list(self.shares), n, p=list(self.shares.values()))
        seeds = rng.integers(0, 1_000_000, n)
        now, far = start(torch.from_numpy(seeds)), 1.6 * torch.rand((n, 2), generator=chance) - 0.8
        seen, acted = [now], []
        for _ in range(HORIZON):
            aims = {"expert": _round(now), "straight": now[:, 4:6] - now[:, 0:2], "wanderer": far - now[:, 0:2]}
            aim = torch.stack([aims[w][i] for i, w in enumerate(who)])
            actions = _steered(now, aim) + 0.2 * torch.randn((n, 2), generator=chance)
            now = advance(now, actions)
            seen.append(now)
            acted.append(actions)
        paths, moves = torch.stack(seen, 1).numpy(), torch.stack(acted, 1).numpy()
        near = (distance(torch.stack(seen[1:], 1)) < NEAR).double().numpy()
        return [
            Sample(int(s), Trajectory(p, m, r), hidden={"quality": str(w)}, ended="cut")
            for s, p, m, r, w in zip(seeds, paths, moves, near, who, strict=True)
        ]

    def segments(self, samples: Sequence[Sample], n: int, *, length: int = 8, seed: int) -> list[Sample]:
        """``n`` pieces of ``length`` steps, from episodes and moments drawn at random."""
        rng, found = np.random.default_rng(seed), []
        for i in rng.integers(0, len(samples), n):
            s, path = samples[i], samples[i].output
            at = int(rng.integers(0, max(1, len(path) - length + 1)))
            piece = Trajectory(
                path.observations[at : at + length + 1], path.actions[at : at + length], path.rewards[at : at + length]
            )
            found.append(Sample(s.prompt, piece, hidden=s.hidden, ended="cut"))
        return found

    def compare(
        self,
        first: Sequence[Sample],
        second: Sequence[Sample],
        *,
        seed: int,
        noise: float = 0.5,
        ties: float = 0.0,
        flips: float = 0.0,
    ) -> list[Judgement]:
        """Simulated annotators of pairs of segments: Bradley-Terry on gold, ``noise`` reward units a nat.

        Args:
            ties: share of the pairs of which an annotator says that they cannot be told apart: the closest ones.
            flips: share of the others that is answered the wrong way round.
        """
        # A stream of its own: segments drawn with this seed would else decide which answers are wrong.
        rng = np.random.default_rng((seed, 1))
        gaps = (self._total(first) - self._total(second)).numpy()
        level = np.quantile(np.abs(gaps), ties) if ties else -1.0
        won = first_wins(gaps / noise, rng) ^ (rng.random(len(gaps)) < flips)
        ranks = [(0, 0) if abs(g) <= level else ((0, 1) if w else (1, 0)) for g, w in zip(gaps, won, strict=True)]
        return [
            Judgement((a, b), rank=rank, annotator="simulated") for a, b, rank in zip(first, second, ranks, strict=True)
        ]

    def _total(self, samples: Sequence[Sample]) -> Tensor:
        return self.gold.evaluate(self.gold.encode(samples))["scores"]

    def policy(self, *, hidden: Sequence[int] = (64, 64), seed: int = 0) -> ControlPolicy:
        """An untrained Gaussian actor."""
        return ControlPolicy.scratch(self.envs(1), hidden=hidden, seed=seed)

    def build(self, *, steps: int = 1000, episodes: int = 400, force: bool = False) -> Path:
        """The folder of the base policy, ``steps`` updates on demonstrations; trained where the cache has none."""
        seed = self.seed
        facts: dict[str, Any] = {"shares": self.shares, "episodes": episodes, "steps": steps, "seed": seed}
        facts |= made_by(Path(__file__))

        def make(folder: Path) -> None:
            policy = self.policy(seed=seed)
            imitate(policy, self.demonstrations(episodes, seed=1000 + seed), steps=steps, seed=seed)
            save_file(dict(policy.module.state_dict()), folder / "model.safetensors")

        return cached("control", facts, make, force=force)

    def base_policy(self, **options: Any) -> ControlPolicy:
        """Demonstrations cloned, the view ``start`` kept; built once into the cache.

        Args:
            options: of :meth:`build`.
        """
        policy = self.policy(seed=self.seed)
        policy.module.load_state_dict(load_file(self.build(**options) / "model.safetensors"))
        policy.keep("start")
        return policy

    @torch.no_grad()
    def measure(self, policy: ControlPolicy, *, n: int = 4, greedy: bool = False, seed: int = 9) -> dict[str, float]:
        """Figures of ``n`` episodes a prompt.

        Returns:
            ``gold`` (of an episode), ``success`` (share of episodes that end near the goal), ``spread`` (deviation of
            where episodes of one prompt end, a mean over prompts), and ``kl`` to the start in nats an episode.
        """
        rollout = self.draw(policy, n, seed=seed, greedy=greedy)
        last = torch.from_numpy(np.stack([s.output.observations[-1] for s in rollout.samples]))
        ends = last[:, 0:2].reshape(len(self.prompts), n, 2)
        before = policy.at("start").evaluate(rollout)["logps"]
        return {
            "gold": float(self._total(rollout.samples).mean()),
            "success": float((distance(last) < NEAR).double().mean()),
            "spread": float(ends.var(1, unbiased=n > 1).sum(-1).sqrt().mean()),
            "kl": float(masked_sum(rollout["old_logps"] - before, rollout.mask).mean()),
        }


def _steered(now: Tensor, aim: Tensor) -> Tensor:
    """Actions that bring the velocity towards ``aim``, slower when it is near."""
    away = aim.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    wanted = aim / away * (0.35 * away).clamp(max=0.11)
    return ((wanted - DRAG * now[:, 2:4]) / PUSH).clamp(-1, 1)


def _round(now: Tensor) -> Tensor:
    """Where to head for the goal without crossing the hazard: along its edge while it stands in the way."""
    here, goal = now[:, 0:2], now[:, 4:6]
    way = goal - here
    along = (-(here * way).sum(-1) / way.square().sum(-1).clamp(min=1e-6)).clamp(0, 1)
    clearance = (here + along[:, None] * way).norm(dim=-1)
    turn = torch.sign(here[:, 0] * goal[:, 1] - here[:, 1] * goal[:, 0])
    turn = torch.where(turn == 0, torch.ones_like(turn), turn)
    radius = here.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    tangent = turn[:, None] * torch.stack([-here[:, 1], here[:, 0]], -1) / radius
    keep_off = here / radius * ((HAZARD + 0.2 - radius) * 3).clamp(min=-0.5, max=1.0)
    detour = (tangent + keep_off) * 0.6
    return torch.where((clearance < HAZARD + 0.1)[:, None], detour, way)
