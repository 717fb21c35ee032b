"""The track, its traffic and what a step does, for many copies as arrays. Metres, seconds, radians.

Positions are those of the lane: ``s`` along its centre line, ``d`` to the left of it. A red light counts after two
seconds of amber, which look red already: whoever is too near to stop is across by then.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

DT, ROUTE, LIMIT, FASTEST = 0.25, 120.0, 10.0, 15.0
"""Seconds a step; metres of the route; speed limit, and what the car can do, metres a second."""
HORIZON, STILL = 240, 48
"""Steps until time is up, and of standing still until the car counts as blocked; a red light takes fewer."""
LANE, ROAD, BODY = 1.5, 4.0, (4.5, 1.8)
"""Offsets from which the car is off its lane and off the road; length and width within which cars collide."""
GREEN, AMBER, RED = 28, 8, 20
"""Steps of each light."""
HOLD, NEAR = 6, 1.5
"""Steps for which a too short time to collision counts, and what is too short, seconds."""
SIGHT = 40.0
"""How far ahead the driver sees, metres."""
PEDALS, WHEEL = (-5.0, -2.5, 0.0, 2.5), (-0.05, -0.015, 0.0, 0.015, 0.05)
"""Accelerations, metres a second squared, and curvatures, 1 / metre, of the discrete actions."""

SENSES = (
    "speed", "offset", "heading", "bend_0", "bend_10", "bend_20", "gap", "closing", "light", "red", "steering",
    "acceleration", "alarm", "still",
)  # fmt: skip
FACTS = ("progress", "off_lane", "excess", "danger", "harsh", "aside", "collision", "red_run", "left", "blocked")
"""What rewards read of the last step, at the end of every observation: per cent of the route that it added; whether it
was off the lane; metres a second above the limit; whether a time to collision was too short lately; whether it was
uncomfortable; metres from the lane's middle; and infractions that end an episode (``blocked`` also: out of time)."""
COLUMN = {name: i for i, name in enumerate(SENSES)} | {n: i - len(FACTS) for i, n in enumerate(FACTS)}
"""Where an observation has what; facts are counted from the end."""


@dataclass
class State:
    """``N`` copies; the car's fields are ``[N]``, those of other cars and lights ``[N, C]`` and ``[N, M]``."""

    s: np.ndarray
    d: np.ndarray
    heading: np.ndarray
    v: np.ndarray
    steering: np.ndarray
    acceleration: np.ndarray
    taken: np.ndarray
    alarm: np.ndarray
    still: np.ndarray
    bends: np.ndarray
    cars: np.ndarray
    speeds: np.ndarray
    wish: np.ndarray
    lights: np.ndarray
    phase: np.ndarray

    def put(self, rows: np.ndarray, other: State) -> None:
        """Copy another state's copies into these rows, in order."""
        for f in fields(self):
            getattr(self, f.name)[rows] = getattr(other, f.name)

    def copy(self) -> State:
        """The same state, to be kept."""
        return State(**{f.name: getattr(self, f.name).copy() for f in fields(self)})


@dataclass(frozen=True)
class Scene:
    """What lies on a track.

    Args:
        cars: ahead at the start. lights: on the route. bend: 1 for curves of radius 60 m and more, 0 for a straight.
        speed: metres a second at the start.
    """

    cars: int = 2
    lights: int = 2
    bend: float = 1.0
    speed: float = 0.0

    def start(self, seeds: np.ndarray) -> State:
        """First states of episodes, each a function of its seed."""
        drawn = [self._drawn(np.random.default_rng(int(seed))) for seed in seeds]
        bends, cars, wish, lights, phase = (np.stack(x) for x in zip(*drawn, strict=True))
        s, d, heading, steering, acceleration = np.zeros((5, len(drawn)))
        v = np.full(len(drawn), self.speed)
        taken, alarm, still = np.zeros((3, len(drawn)), dtype=np.int64)
        return State(
            s, d, heading, v, steering, acceleration, taken, alarm, still, bends, cars, wish.copy(), wish, lights, phase
        )

    def _drawn(self, chance: np.random.Generator) -> tuple[np.ndarray, ...]:
        bends = chance.uniform(0, 2 * np.pi, 2)
        cars = 15 + np.cumsum(chance.uniform(12, 30, self.cars)) - 12
        wish = np.sort(chance.uniform(4, 8, self.cars))
        every = ROUTE / max(self.lights, 1)
        lights = (np.arange(self.lights) + 0.5) * every + chance.uniform(-8, 8, self.lights)
        return bends, cars, wish, lights, chance.integers(0, GREEN + AMBER + RED, self.lights).astype(float)


def curvature(scene: Scene, bends: np.ndarray, s: np.ndarray) -> np.ndarray:
    """1 / radius of the lane at ``s``, positive to the left: ``[N]``."""
    wave = 0.012 * np.sin(2 * np.pi * s / 60 + bends[:, 0]) + 0.005 * np.sin(2 * np.pi * s / 37 + bends[:, 1])
    return scene.bend * wave


def shown(state: State) -> tuple[np.ndarray, np.ndarray]:
    """Whether each light looks red, and whether passing it counts: bool ``[N, M]``."""
    at = (state.taken[:, None] + state.phase) % (GREEN + AMBER + RED)
    return at >= GREEN, at >= GREEN + AMBER


def ahead(state: State) -> tuple[np.ndarray, np.ndarray]:
    """Metres to the bumper of the next car and its speed: ``[N]``; infinity where there is none."""
    if not state.cars.shape[1]:
        return np.full(len(state.s), np.inf), np.zeros(len(state.s))
    away = np.where(state.cars > state.s[:, None], state.cars - state.s[:, None], np.inf)
    nearest = away.argmin(1)[:, None]
    gap = np.take_along_axis(away, nearest, 1)[:, 0] - BODY[0]
    return np.maximum(gap, 0.0), np.take_along_axis(state.speeds, nearest, 1)[:, 0]


def light_ahead(state: State) -> tuple[np.ndarray, np.ndarray]:
    """Metres to the next light and whether it looks red: ``[N]``; infinity where there is none."""
    if not state.lights.shape[1]:
        return np.full(len(state.s), np.inf), np.zeros(len(state.s), dtype=bool)
    away = np.where(state.lights > state.s[:, None], state.lights - state.s[:, None], np.inf)
    nearest = away.argmin(1)[:, None]
    return np.take_along_axis(away, nearest, 1)[:, 0], np.take_along_axis(shown(state)[0], nearest, 1)[:, 0]


def advance(scene: Scene, state: State, acceleration: np.ndarray, steering: np.ndarray) -> dict[str, np.ndarray]:
    """One step, in place.

    Args:
        acceleration, steering: ``[N]``, metres a second squared and 1 / metre.

    Returns:
        the :data:`FACTS` by name, ``[N]``, and ``finished``.
    """
    _, counts = shown(state)
    _drive_others(state)
    before = state.s.copy()
    state.v = np.clip(state.v + DT * acceleration, 0.0, FASTEST)
    bend = curvature(scene, state.bends, state.s)
    way = DT * state.v * np.cos(state.heading) / np.maximum(1 - state.d * bend, 0.5)
    state.s = state.s + way
    state.d = state.d + DT * state.v * np.sin(state.heading)
    state.heading = state.heading + DT * state.v * steering - bend * way
    state.steering, state.acceleration, state.taken = steering, acceleration, state.taken + 1
    gap, speed = ahead(state)
    closing = np.maximum(state.v - speed, 1e-6)
    inside = np.abs(state.d) < BODY[1]
    state.alarm = np.where(inside & (gap / closing < NEAR), HOLD, np.maximum(state.alarm - 1, 0))
    state.still = np.where(state.v < 0.1, state.still + 1, 0)
    near = np.abs(state.cars - state.s[:, None]) < BODY[0]
    passed = (state.lights > before[:, None]) & (state.lights <= state.s[:, None])
    reached = np.minimum(state.s, ROUTE)
    return {
        "progress": np.maximum(reached - np.minimum(before, ROUTE), 0) * 100 / ROUTE,
        "off_lane": np.abs(state.d) > LANE,
        "excess": np.maximum(state.v - LIMIT, 0),
        "danger": state.alarm > 0,
        "harsh": (state.v**2 * np.abs(steering) > 3.0) | (acceleration < -4.0),
        "aside": np.abs(state.d),
        "collision": inside & near.any(1),
        "red_run": (passed & counts).any(1),
        "left": (np.abs(state.d) > ROAD) | (np.abs(state.heading) > 1.2),
        "blocked": (state.still >= STILL) | (state.taken >= HORIZON),
        "finished": state.s >= ROUTE,
    }


def _drive_others(state: State) -> None:
    """Other cars keep their distance and stop at lights that look red, if they still can."""
    if not state.cars.shape[1]:
        return
    gap = np.full_like(state.cars, np.inf)
    gap[:, :-1] = state.cars[:, 1:] - state.cars[:, :-1] - BODY[0]
    away = state.lights[:, None, :] - state.cars[:, :, None]
    can = away > state.speeds[:, :, None] ** 2 / 8
    red = np.where(can & shown(state)[0][:, None, :], away, np.inf).min(2, initial=np.inf)
    room = np.minimum(gap - 3.0, red - 1.0)
    target = np.minimum(state.wish, np.maximum(0.6 * room, 0.0))
    state.speeds = np.clip(target, np.maximum(state.speeds - 5.0 * DT, 0.0), state.speeds + 2.0 * DT)
    state.cars = state.cars + DT * state.speeds


def look(scene: Scene, state: State, facts: dict[str, np.ndarray] | None = None) -> np.ndarray:
    """Observations, float32 ``[N, D]``: :data:`SENSES`, about 1 in size, then the :data:`FACTS` as they are."""
    gap, speed = ahead(state)
    light, red = light_ahead(state)
    seen = gap < SIGHT
    bends = [50 * curvature(scene, state.bends, state.s + far) for far in (0, 10, 20)]
    senses = [
        state.v / LIMIT, state.d / 2, 2 * state.heading, *bends, np.minimum(gap, SIGHT) / SIGHT,
        np.where(seen, (state.v - speed) / LIMIT, 0.0), np.minimum(light, SIGHT) / SIGHT, red & (light < SIGHT),
        20 * state.steering, state.acceleration / 5, state.alarm / HOLD, state.still / STILL,
    ]  # fmt: skip
    told = [np.zeros(len(state.s)) if facts is None else facts[n] for n in FACTS]
    return np.stack([np.asarray(x, dtype=np.float32) for x in [*senses, *told]], -1)


def attentive(observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Accelerations and curvatures of a careful driver, ``[N]``: keeps to the middle, to the limit and its distance."""
    see = {n: observations[:, COLUMN[n]].astype(float) for n in SENSES}
    speed = LIMIT * see["speed"]
    bend = see["bend_0"] / 50
    steering = np.clip(bend - 0.08 * see["offset"] - 0.2 * see["heading"], -0.05, 0.05)
    return np.clip((wanted_speed(observations) - speed) / DT, -4.0, 2.5), steering


def wanted_speed(observations: np.ndarray) -> np.ndarray:
    """Metres a second at which a careful driver would go, for the car and the light ahead: ``[..., D] -> [...]``."""
    lead = SIGHT * observations[..., COLUMN["gap"]]
    other = LIMIT * (observations[..., COLUMN["speed"]] - observations[..., COLUMN["closing"]])
    line = SIGHT * observations[..., COLUMN["light"]]
    # The square root is the speed from which braking at 3 m/s^2 comes to rest in time.
    behind = np.where(lead < SIGHT - 0.1, np.sqrt(np.maximum(6 * (lead - 3), 0) + np.maximum(other, 0) ** 2), LIMIT)
    can = line > (LIMIT * observations[..., COLUMN["speed"]]) ** 2 / 10
    stop = np.where((observations[..., COLUMN["red"]] > 0.5) & can, np.sqrt(np.maximum(6 * (line - 1.5), 0)), LIMIT)
    return np.minimum(np.minimum(behind, stop), LIMIT)
