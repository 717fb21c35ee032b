"""World ``driving``: episodes of a careful driver, a careless one, annotators who compare episodes, figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from rewardkit.measures.masked import masked_sum
from rewardkit.policies.control import ControlPolicy, Steps
from rewardkit.policies.control.pieces import pieces, rollout_of
from rewardkit.registry import entry
from rewardkit.rewards.rules.observed import after
from rewardkit.types import Judgement, Rollout, Sample
from rewardkit.worlds.annotators import first_wins, judged
from rewardkit.worlds.cache import cached, made_by
from rewardkit.worlds.clones import imitate
from rewardkit.worlds.driving.envs import LaneEnvs
from rewardkit.worlds.driving.physics import COLUMN, FACTS, HORIZON, LIMIT, Scene, attentive
from rewardkit.worlds.driving.scores import driving_score

LESSONS = 10_000_000
"""The first seed of the episodes that a base policy learns from."""
PLACES = np.arange(5, 100, 5)
"""Per cent of the route at which :meth:`Driving.variety` compares speeds."""


@entry("worlds:driving", tags=("control", "gymnasium", "driving"))
class Driving:
    """A curved lane with a speed limit, cars ahead that are slower, and traffic lights. Prompts are seeds of episodes.

    Args:
        episodes: prompts. first: the first of them. scene: what lies on the tracks. continuous: see
            :class:`LaneEnvs`. seed: of the base policy.

    >>> world = Driving(4)
    >>> round(float(world.gold(world.careful()).outcome.mean()))
    100
    """

    sampling = Steps(HORIZON, fresh=True)
    gold = driving_score

    def __init__(
        self,
        episodes: int = 48,
        *,
        first: int = 0,
        scene: Scene | None = None,
        continuous: bool = False,
        seed: int = 0,
    ) -> None:
        self.prompts = list(range(first, first + episodes))
        self.scene, self.continuous, self.seed = scene or Scene(), continuous, seed

    def envs(self, copies: int, *, seed: int = 0) -> LaneEnvs:
        """Copies of the environment."""
        return LaneEnvs(copies, seed=seed, scene=self.scene, continuous=self.continuous)

    def policy(self, *, hidden: Sequence[int] = (64, 64), critic: bool = False, seed: int = 0) -> ControlPolicy:
        """An untrained actor."""
        return ControlPolicy.scratch(self.envs(1), hidden=hidden, critic=critic, seed=seed)

    def draw(self, policy: ControlPolicy, n: int = 1, *, seed: int, greedy: bool = False) -> Rollout:
        """``n`` whole episodes of each prompt."""
        how = Steps(HORIZON, fresh=True, greedy=greedy)
        return policy.sample(self.prompts, n, env=self.envs(len(self.prompts) * n), sampling=how, seed=seed)

    def careful(self, *, noise: float = 0.0, seed: int = 0) -> Rollout:
        """An episode of each prompt by a driver who follows rules.

        Args:
            noise: deviation of accelerations and of the wheel, in shares of their ranges.
        """
        envs = LaneEnvs(len(self.prompts), scene=self.scene, continuous=True)
        chance = np.random.default_rng(seed)
        now = envs.reset(seeds=self.prompts)
        seen, taken, paid, ended, late, reached = ([] for _ in range(6))  # type: ignore[var-annotated]
        running = np.ones(envs.copies, dtype=bool)
        while running.any():
            pedal, wheel = attentive(now)
            actions = np.stack([np.where(pedal < 0, pedal / 5.0, pedal / 2.5), wheel / 0.05], -1)
            actions = (actions + noise * chance.normal(size=actions.shape)).astype(np.float32)
            seen.append(now)
            now, reward, done, out = envs.step(actions)
            for kept, new in zip((taken, paid, ended, late, reached), (actions, reward, done, out, now), strict=True):
                kept.append(new)
            running &= ~(done | out)
            if running.any():
                now = envs.reset(done | out)
        moves = torch.from_numpy(np.stack(taken))
        found = pieces(seen, moves, paid, ended, late, reached, first_only=True)
        return rollout_of(found, [Sample(p) for p in self.prompts], list(range(len(self.prompts))), how={})

    def build(self, *, steps: int = 300, episodes: int = 200, noise: float = 0.6, force: bool = False) -> Path:
        """The folder of the base policy, trained where the cache has none: a careless driver, who learned in few
        updates from the careful one with an unsteady hand, and acts as unsteadily.

        Args:
            steps: updates. episodes: to learn from. noise: see :meth:`careful`. force: train anew even where the cache
                has it.
        """
        seed = self.seed
        facts: dict[str, Any] = {"scene": asdict(self.scene), "episodes": episodes, "noise": noise, "steps": steps}
        facts |= {"seed": seed, **made_by(Path(__file__))}

        def make(folder: Path) -> None:
            world = Driving(episodes, first=LESSONS, scene=self.scene, continuous=True)
            policy = world.policy(seed=seed)
            imitate(policy, world.careful(noise=noise, seed=seed).samples, steps=steps, seed=seed)
            save_file(dict(policy.module.state_dict()), folder / "model.safetensors")

        return cached("driving", facts, make, force=force)

    def base_policy(self, **options: Any) -> ControlPolicy:
        """The careless driver, the view ``start`` kept; built once into the cache.

        Args:
            options: of :meth:`build`.

        Raises:
            ValueError: in a world of discrete actions: the careful driver's are continuous, and so are its clone's.
        """
        if not self.continuous:
            raise ValueError("the base policy acts continuously: use Driving(continuous=True)")
        policy = self.policy(seed=self.seed)
        policy.module.load_state_dict(load_file(self.build(**options) / "model.safetensors"))
        policy.keep("start")
        return policy

    def compare(
        self, first: Rollout, second: Rollout, *, seed: int, noise: float = 10.0, flips: float = 0.0
    ) -> list[Judgement]:
        """Simulated annotators of pairs of episodes, row by row: Bradley-Terry on gold.

        Args:
            noise: points of the driving score a nat. flips: share of the pairs that is answered the wrong way round.
        """
        rng = np.random.default_rng(seed)
        gaps = (_outcome(first) - _outcome(second)) / noise
        won = first_wins(gaps, rng) ^ (rng.random(len(gaps)) < flips)
        return judged(first.samples, second.samples, won)

    @torch.no_grad()
    def measure(self, policy: ControlPolicy, *, n: int = 1, greedy: bool = False, seed: int = 9) -> dict[str, float]:
        """Figures of ``n`` episodes a prompt.

        Returns:
            ``gold``, the driving score; ``completion``, per cent of the route; the share of episodes with each
            infraction by name; ``spread``, the deviation of gold over a prompt's episodes; and ``kl`` to the start in
            nats an episode.
        """
        rollout = self.draw(policy, n, seed=seed, greedy=greedy)
        scores = torch.from_numpy(_outcome(rollout))
        facts = after(rollout)
        found = {
            "gold": float(scores.mean()),
            "completion": float((facts[..., COLUMN["progress"]] * rollout.mask).sum(-1).mean()),
            "spread": float(scores.reshape(len(self.prompts), n).std(1, unbiased=n > 1).mean()),
        }
        for name in FACTS[-4:]:
            found[name] = float((facts[..., COLUMN[name]] * rollout.mask).amax(-1).mean())
        before = policy.at("start").evaluate(rollout)["logps"]
        return found | {"kl": float(masked_sum(rollout["old_logps"] - before, rollout.mask).mean())}

    def variety(self, rollout: Rollout) -> float:
        """How differently a track is driven: the deviation of speeds at equal places over a group's episodes, metres a
        second, a mean over the places that two of them reached; 0 where there are none."""
        speeds = np.stack([_speeds(s.output.observations) for s in rollout.samples])
        each = [speeds[(rollout.group == g).numpy()] for g in rollout.group.unique()]
        found = [np.nanstd(x[:, two], axis=0, ddof=1) for x in each if (two := (~np.isnan(x)).sum(0) > 1).any()]
        return float(np.concatenate(found).mean()) if found else 0.0


def _speeds(observations: np.ndarray) -> np.ndarray:
    """Metres a second at :data:`PLACES`, NaN where an episode did not get to them."""
    along = np.cumsum(observations[:, COLUMN["progress"]], dtype=np.float64)
    at = np.searchsorted(along, PLACES)
    speed = LIMIT * observations[:, COLUMN["speed"]]
    return np.where(at < len(along), speed[at.clip(max=len(along) - 1)], np.nan)


def _outcome(rollout: Rollout) -> np.ndarray:
    found = driving_score(rollout).outcome
    assert found is not None
    return found.double().numpy()
