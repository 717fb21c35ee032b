"""The point as a Gymnasium environment, and many of them stepped as one array."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor

from rewardkit.worlds.control.physics import HORIZON, NEAR, advance, distance, start

OBSERVATIONS = gymnasium.spaces.Box(-2.0, 2.0, (6,), np.float32)
ACTIONS = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)


class PointReach(gymnasium.Env[Any, Any]):
    """One point. The reward is sparse: 1 at each step that ends near the goal. Episodes end by time alone.

    >>> env = PointReach()
    >>> env.reset(seed=4)[0].shape, env.step(np.zeros(2, dtype=np.float32))[1]
    ((6,), 0.0)
    """

    observation_space, action_space = OBSERVATIONS, ACTIONS
    render_mode = "rgb_array"

    def __init__(self) -> None:
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 8}
        self.points = PointEnvs(1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        chosen = int(self.np_random.integers(1_000_000)) if seed is None else seed
        return self.points.reset(seeds=[chosen])[0], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        found, rewards, ended, late = self.points.step(np.asarray(action)[None])
        return found[0], float(rewards[0]), bool(ended[0]), bool(late[0]), {}

    def render(self) -> Any:
        """The frame, ``uint8 [32, 32, 3]``."""
        from rewardkit.worlds.control.pictures import frames

        assert self.points.observation is not None, "reset before you render"
        picture = frames(torch.from_numpy(self.points.observation))[0]
        return (255 * picture.permute(1, 2, 0)).round().byte().numpy()

    def snapshot(self) -> Callable[[], None]:
        """See :meth:`PointEnvs.snapshot`."""
        return self.points.snapshot()

    def state(self) -> Mapping[str, Any]:
        """Observation and steps so far."""
        return self.points.state_dict()


class PointEnvs:
    """Copies for :meth:`ControlPolicy.sample`, as :class:`rewardkit.policies.control.envs.Envs`, in one array.

    Args:
        copies: how many. seed: copy ``i`` begins with ``seed + i``, and its later episodes ``copies`` seeds apart.

    >>> envs = PointEnvs(3)
    >>> envs.reset().shape, envs.step(np.zeros((3, 2)))[1].tolist()
    ((3, 6), [0.0, 0.0, 0.0])
    """

    observation_space: Any = OBSERVATIONS
    action_space: Any = ACTIONS

    def __init__(self, copies: int = 1, *, seed: int = 0) -> None:
        if copies < 1:
            raise ValueError(f"PointEnvs needs at least one copy, not {copies}")
        self.copies = copies
        self.seeds, self.taken = np.arange(seed, seed + copies), np.zeros(copies, dtype=np.int64)
        self.observation: np.ndarray | None = None

    def reset(self, which: np.ndarray | None = None, seeds: Sequence[int | None] | None = None) -> np.ndarray:
        """Begin new episodes; see :meth:`rewardkit.policies.control.envs.Envs.reset`."""
        mask = np.ones(self.copies, dtype=bool) if which is None else np.asarray(which, dtype=bool)
        now = self._begun(np.arange(self.copies)) if self.observation is None else self.observation.copy()
        for i in np.flatnonzero(mask).tolist():
            given = None if seeds is None else seeds[i]
            if given is not None:
                self.seeds[i] = given
            elif self.observation is not None:
                self.seeds[i] += self.copies
        now[mask] = self._begun(np.flatnonzero(mask))
        self.taken[mask] = 0
        self.observation = now
        return now

    def _begun(self, rows: np.ndarray) -> np.ndarray:
        return start(torch.from_numpy(self.seeds[rows])).numpy()

    @torch.no_grad()
    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Observations ``[N, 6]``, sparse rewards, terminated (never) and truncated ``[N]``."""
        if self.observation is None:
            raise ValueError("reset before you step")
        after: Tensor = advance(torch.from_numpy(self.observation), torch.as_tensor(actions, dtype=torch.float32))
        self.taken += 1
        self.observation = after.numpy()
        reached = (distance(after) < NEAR).numpy().astype(np.float64)
        return self.observation, reached, np.zeros(self.copies, dtype=bool), self.taken >= HORIZON

    def snapshot(self) -> Callable[[], None]:
        """Keep the present state; the returned function puts it back, as often as it is called."""
        kept = self.state_dict()
        return lambda: self.load_state_dict(kept)

    def state_dict(self) -> dict[str, Any]:
        """Where every copy stands."""
        here = None if self.observation is None else self.observation.copy()
        return {"seeds": self.seeds.copy(), "taken": self.taken.copy(), "observation": here}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        here = state["observation"]
        self.seeds, self.taken = state["seeds"].copy(), state["taken"].copy()
        self.observation = None if here is None else here.copy()
