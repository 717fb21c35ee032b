"""The track as a Gymnasium environment, and many of them stepped as one array."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

from rewardkit.worlds.driving.physics import FACTS, PEDALS, SENSES, WHEEL, Scene, State, advance, look

OBSERVATIONS = gymnasium.spaces.Box(-np.inf, np.inf, (len(SENSES) + len(FACTS),), np.float32)
DISCRETE = gymnasium.spaces.Discrete(len(PEDALS) * len(WHEEL))
CONTINUOUS = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
HARD = ("collision", "red_run", "left", "blocked")
"""Facts that end an episode."""


class LaneEnvs:
    """Copies for :meth:`ControlPolicy.sample`, as :class:`rewardkit.policies.control.envs.Envs`, in one array.

    The environment's own reward is the progress of each step, in per cent of the route. An infraction terminates; the
    end of the route truncates, because the road goes on behind it.

    Args:
        copies: how many. seed: copy ``i`` begins with ``seed + i``, and its later episodes ``copies`` seeds apart.
        scene: what lies on the track. continuous: actions ``[2]`` in [-1, 1], pedal and wheel, instead of 20 discrete
            ones (pedal times five plus wheel).

    >>> envs = LaneEnvs(3)
    >>> envs.reset().shape, envs.step(np.full(3, 17))[1].round(2).tolist()
    ((3, 24), [0.13, 0.13, 0.13])
    """

    observation_space: Any = OBSERVATIONS

    def __init__(self, copies: int = 1, *, seed: int = 0, scene: Scene | None = None, continuous: bool = False) -> None:
        if copies < 1:
            raise ValueError(f"LaneEnvs needs at least one copy, not {copies}")
        self.copies, self.scene = copies, scene or Scene()
        self.action_space: Any = CONTINUOUS if continuous else DISCRETE
        self.seeds = np.arange(seed, seed + copies)
        self.now: State | None = None
        self.facts: dict[str, np.ndarray] = {}
        self.observation: np.ndarray | None = None

    def reset(self, which: np.ndarray | None = None, seeds: Sequence[int | None] | None = None) -> np.ndarray:
        """Begin new episodes; see :meth:`rewardkit.policies.control.envs.Envs.reset`."""
        mask = np.ones(self.copies, dtype=bool) if which is None else np.asarray(which, dtype=bool)
        if self.now is not None:
            self.seeds[mask] += self.copies
        for i, given in enumerate(seeds or ()):
            if mask[i] and given is not None:
                self.seeds[i] = given
        if self.now is None or self.observation is None:
            self.now = self.scene.start(self.seeds)
            self.observation = look(self.scene, self.now)
        elif mask.any():
            begun = self.scene.start(self.seeds[mask])
            self.now.put(mask, begun)
            self.observation = self.observation.copy()
            self.observation[mask] = look(self.scene, begun)
        return self.observation

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Observations ``[N, 24]``, progress, terminated and truncated ``[N]``."""
        if self.now is None:
            raise ValueError("reset before you step")
        self.facts = advance(self.scene, self.now, *self._meant(np.asarray(actions)))
        self.observation = look(self.scene, self.now, self.facts)
        ended = np.logical_or.reduce([self.facts[n] for n in HARD])
        return self.observation, self.facts["progress"], ended, self.facts["finished"] & ~ended

    def _meant(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Accelerations and curvatures of actions."""
        if self.action_space is DISCRETE:
            return np.array(PEDALS)[actions // len(WHEEL)], np.array(WHEEL)[actions % len(WHEEL)]
        pedal, wheel = np.clip(actions.astype(float), -1, 1).T
        return np.where(pedal < 0, -PEDALS[0], PEDALS[-1]) * pedal, WHEEL[-1] * wheel

    def snapshot(self) -> Callable[[], None]:
        """Keep the present state; the returned function puts it back, as often as it is called."""
        kept = self.state_dict()
        return lambda: self.load_state_dict(kept)

    def state_dict(self) -> dict[str, Any]:
        """Where every copy stands."""
        return {
            "seeds": self.seeds.copy(),
            "now": None if self.now is None else self.now.copy(),
            "facts": dict(self.facts),
            "observation": None if self.observation is None else self.observation.copy(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self.seeds, self.facts = state["seeds"].copy(), dict(state["facts"])
        self.now = None if state["now"] is None else state["now"].copy()
        self.observation = None if state["observation"] is None else state["observation"].copy()


class LaneTrack(gymnasium.Env[Any, Any]):
    """One track. ``info`` holds the facts of the last step by name.

    >>> env = LaneTrack()
    >>> _ = env.reset(seed=0)
    >>> sorted(env.step(17)[4])[:3]
    ['aside', 'blocked', 'collision']
    """

    observation_space, action_space = OBSERVATIONS, DISCRETE

    def __init__(self, *, scene: Scene | None = None, continuous: bool = False) -> None:
        self.metadata = {"render_modes": []}
        self.tracks = LaneEnvs(1, scene=scene, continuous=continuous)
        self.action_space = self.tracks.action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        chosen = int(self.np_random.integers(1_000_000)) if seed is None else seed
        return self.tracks.reset(seeds=[chosen])[0], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        found, rewards, ended, late = self.tracks.step(np.asarray(action)[None])
        info = {k: float(v[0]) for k, v in self.tracks.facts.items()}
        return found[0], float(rewards[0]), bool(ended[0]), bool(late[0]), info

    def snapshot(self) -> Callable[[], None]:
        """See :meth:`LaneEnvs.snapshot`."""
        return self.tracks.snapshot()

    def state(self) -> Mapping[str, Any]:
        """Where the car, the others and the lights stand."""
        return self.tracks.state_dict()
