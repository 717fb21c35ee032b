"""Copies of a Gymnasium environment, stepped together and reset one by one."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv


class Copies(Protocol):
    """What a control policy acts in: an :class:`Envs`, or a world of its own that steps all copies as one array."""

    copies: int
    observation: np.ndarray | None
    observation_space: Any
    action_space: Any

    def reset(self, which: np.ndarray | None = None, seeds: Sequence[int | None] | None = None) -> np.ndarray: ...

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]: ...


class Envs:
    """Copies of an environment for :meth:`ControlPolicy.sample`.

    Nothing resets by itself: Gymnasium's vector environments would otherwise hand the first observation of the next
    episode to the value target, or spend a step on resetting that is no transition.

    Args:
        make: the name of a registered environment, or a function that makes one. copies: how many.
        seed: copy ``i`` is first reset with ``seed + i``. options: for ``gymnasium.make``.

    >>> envs = Envs("CartPole-v1", 2, seed=0)
    >>> envs.reset().shape
    (2, 4)
    """

    def __init__(
        self, make: str | Callable[[], gymnasium.Env[Any, Any]], copies: int = 1, *, seed: int = 0, **options: Any
    ) -> None:
        if copies < 1:
            raise ValueError(f"Envs needs at least one copy, not {copies}")
        one = make if callable(make) else lambda: gymnasium.make(make, **options)
        self.vector = SyncVectorEnv([one] * copies, autoreset_mode=AutoresetMode.DISABLED)
        self.copies, self.seed = copies, seed
        self.observation_space, self.action_space = (
            self.vector.single_observation_space,
            self.vector.single_action_space,
        )
        self.observation: np.ndarray | None = None

    def reset(self, which: np.ndarray | None = None, seeds: Sequence[int | None] | None = None) -> np.ndarray:
        """Begin new episodes.

        Args:
            which: bool ``[N]``, the copies to reset; ``None`` for all. seeds: one a copy; ``None`` goes on with the
                copies' own generators (the first time, with ``seed``).

        Returns:
            ``[N, ...]``, the observations of all copies.
        """
        given: Any = None if seeds is None else list(seeds)
        if given is None and self.observation is None:
            given = [self.seed + i for i in range(self.copies)]
        options = None if which is None else {"reset_mask": np.asarray(which, dtype=bool)}
        found, _ = self.vector.reset(seed=given, options=options)
        self.observation = np.array(found)
        return self.observation

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Observations ``[N, ...]`` (of an episode's end, its own last), rewards, terminated and truncated ``[N]``."""
        found, rewards, terminated, truncated, _ = self.vector.step(actions)
        self.observation = np.array(found)
        return self.observation, np.asarray(rewards), np.asarray(terminated), np.asarray(truncated)

    def snapshot(self) -> Callable[[], None]:
        """Keep the present state of every copy; the returned function puts it back, as often as it is called."""
        kept = copy.deepcopy((self.vector.envs, self.observation))

        def restore() -> None:
            self.vector.envs, self.observation = copy.deepcopy(kept)
            self.vector._autoreset_envs[:] = False

        return restore

    def state_dict(self) -> dict[str, Any]:
        """The copies as they stand, so that a run that was killed goes on in the middle of its episodes.

        Raises:
            TypeError: for an environment that cannot be pickled.
        """
        try:
            return {"envs": pickle.dumps((self.vector.envs, self.observation))}
        except Exception as error:
            raise TypeError(
                f"{self.vector.envs[0]} cannot be pickled, so its state cannot be kept ({error}): leave out the "
                "checkpoint, or sample whole episodes with Steps(fresh=True)"
            ) from error

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`. It is unpickled: load only what you wrote."""
        self.vector.envs, self.observation = pickle.loads(state["envs"])
