"""highway-env behind the same facts, so that the same rewards and the same driving score read it. Optional."""

from __future__ import annotations

import importlib
from typing import Any

import gymnasium
import numpy as np

from rewardkit.worlds.driving.physics import BODY, FACTS, NEAR

KEPT = 5
"""Vehicles in the observation, the own one first: presence, x, y and both velocities of each."""


class Highway(gymnasium.Wrapper[Any, Any, Any, Any]):
    """highway-env's straight roads as a route: its kinematics, then the facts of the last step.

    The end of the route truncates, a crash or leaving the road terminates. There are no traffic lights (``red_run`` is
    0), and its own controllers leave nothing uncomfortable (``harsh`` is 0). ``blocked`` is never said either: time
    alone truncates.

    Args:
        name: of the environment. route: its length, metres. limit: speed limit, metres a second.
        config: what to change of highway-env's configuration.

    Raises:
        ImportError: without the package ``highway-env``.
    """

    def __init__(
        self, name: str = "highway-fast-v0", *, route: float = 400.0, limit: float = 30.0, **config: Any
    ) -> None:
        try:
            importlib.import_module("highway_env")
        except ImportError as error:
            raise ImportError("Highway needs the package highway-env: pip install highway-env") from error
        seen = {"type": "Kinematics", "vehicles_count": KEPT, "features": ["presence", "x", "y", "vx", "vy"]}
        super().__init__(gymnasium.make(name, config={"observation": seen, "offroad_terminal": True, **config}))
        self.route, self.limit = route, limit
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (KEPT * 5 + len(FACTS),), np.float32)

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        seen, info = self.env.reset(**options)
        self.begun = self.at = float(self._car.position[0])
        return self._with(seen, dict.fromkeys(FACTS, 0.0)), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        seen, _, ended, late, info = self.env.step(action)
        car, before = self._car, self.at
        self.at = max(before, min(float(car.position[0]), self.begun + self.route))
        facts = dict.fromkeys(FACTS, 0.0) | {
            "progress": (self.at - before) * 100 / self.route,
            "off_lane": float(not car.on_road),
            "excess": max(float(car.speed) - self.limit, 0.0),
            "danger": float(self._time_to_collision() < NEAR),
            "aside": abs(float(car.lane.local_coordinates(car.position)[1])),
            "collision": float(car.crashed),
            "left": float(not car.on_road),
        }
        finished = self.at >= self.begun + self.route
        return self._with(seen, facts), facts["progress"], ended, late or (finished and not ended), info | facts

    @property
    def _car(self) -> Any:
        return self.env.unwrapped.vehicle  # type: ignore[attr-defined]

    def _time_to_collision(self) -> float:
        """Seconds to the car ahead in the same lane at present speeds."""
        front = self._car.road.neighbour_vehicles(self._car, self._car.lane_index)[0]
        if front is None:
            return float("inf")
        gap = max(float(front.position[0] - self._car.position[0]) - BODY[0], 0.0)
        return gap / max(float(self._car.speed - front.speed), 1e-6)

    def _with(self, seen: Any, facts: dict[str, float]) -> np.ndarray:
        return np.concatenate([np.asarray(seen).reshape(-1), [facts[n] for n in FACTS]]).astype(np.float32)
