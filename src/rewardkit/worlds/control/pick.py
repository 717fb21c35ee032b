"""Pick and place in tokens: the point as a hand with a gripper, what it sees and does a few words a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rewardkit.policies.language.words import word_tokenizer
from rewardkit.types import Sample
from rewardkit.worlds.control.physics import advance, distance

Message = dict[str, Any]

HELD = 5
"""Steps of the point's physics that an action is held for."""
NEAR = 0.17
"""How near the hand must be to grip an object, and an object to its place."""
EDGES = (-1.2, -0.7, -0.35, -0.12, 0.12, 0.35, 0.7, 1.2)
"""Between the words for how far away the aim is, on each axis."""
PUSHES = (-1.0, -0.5, 0.0, 0.5, 1.0)
SEEN_X, SEEN_Y, LEFT = "ABCDEFGHI", "JKLMNOPQR", "01234"
PUSH_X, PUSH_Y, GRIP = "abcde", "vwxyz", "-+"
TASKS = {
    "near": (1, 0.3), "middle": (1, 0.5), "far": (1, 0.8),
    "two near": (2, 0.3), "two middle": (2, 0.4), "two far": (2, 0.5),
}  # fmt: skip
"""Objects, and how far apart hand, object and place are."""
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
)


@cache
def tokenizer() -> Any:
    """A token a letter; EOS after each action."""
    return word_tokenizer([*SEEN_X, *SEEN_Y, *LEFT, *PUSH_X, *PUSH_Y, *GRIP], unknown="0", chat_template=TEMPLATE)


def task(name: str, rng: np.random.Generator) -> Sample:
    """A start of one of :data:`TASKS`; ``hidden`` has ``task`` and ``points``: the hand, each object and its place.

    >>> sample = task("two near", np.random.default_rng(0))
    >>> len(sample.hidden["points"]), sample.prompt[0]["content"][0]
    (5, '4')
    """
    objects, apart = TASKS[name]
    points = [rng.uniform(-0.6, 0.6, 2)]
    while len(points) < 1 + 2 * objects:
        turn = rng.uniform(0, 2 * math.pi)
        found = points[-1] + apart * np.array([math.cos(turn), math.sin(turn)])
        if np.abs(found).max() < 0.9:
            points.append(found)
    hidden = {"task": name, "points": tuple((float(x), float(y)) for x, y in points)}
    return Sample(PickPlace().reset(Sample(None, hidden=hidden)), hidden=hidden)


class PickPlace:
    """A :class:`rewardkit.protocols.TextEnv`: bring each object to its place, one after the other.

    It says the legs left (to an object, to its place, ...) and how far away the aim of this leg is on both axes. An
    action is a push on each axis and the gripper's command, ``-`` open or ``+`` close, after the push: three tokens.
    Anything else is an action that does nothing. A dropped object lies where it fell. The last object in its place ends
    the game; nothing is paid, the state says it.

    >>> game = PickPlace()
    >>> game.reset(Sample(None, hidden={"points": ((0.0, 0.0), (0.2, 0.0), (0.4, 0.0))}))[0]["content"]
    '2FN'
    >>> game.step({"content": "dx+"}), game.step({"content": "dx-"})
    (([{'role': 'user', 'content': '1FN'}], False), ([], True))
    """

    def reset(self, sample: Sample) -> list[Message]:
        """The first observation."""
        hand, *aims = (torch.tensor(p) for p in sample.hidden["points"])
        self.aims: list[Tensor] = list(aims)
        self.now = torch.cat([hand, torch.zeros(2), self.aims[0]])[None]
        self.holds = self.closed = self.done = False
        self.steps = 0
        return [{"role": "user", "content": self.shown()}]

    def shown(self) -> str:
        """What the policy sees."""
        x, y = torch.bucketize(self.now[0, 4:6] - self.now[0, 0:2], torch.tensor(EDGES)).tolist()
        return LEFT[len(self.aims)] + SEEN_X[x] + SEEN_Y[y]

    def step(self, message: Message) -> tuple[list[Message], bool]:
        """Move, then open or close the gripper."""
        said = str(message["content"])
        known = len(said) == 3 and all(w in ws for w, ws in zip(said, (PUSH_X, PUSH_Y, GRIP), strict=True))
        x, y, grip = tuple(said) if known else (PUSH_X[2], PUSH_Y[2], GRIP[self.closed])
        push = torch.tensor([[PUSHES[PUSH_X.index(x)], PUSHES[PUSH_Y.index(y)]]])
        for _ in range(HELD):
            self.now = advance(self.now, push)
        self.steps += 1
        self._grip(grip == "+")
        return ([], True) if self.done else ([{"role": "user", "content": self.shown()}], False)

    def _grip(self, closed: bool) -> None:
        self.closed = closed
        there = bool(distance(self.now)[0] < NEAR)
        if closed and not self.holds and there:
            self.holds, self.aims = True, self.aims[1:]
        elif self.holds and not closed:
            self.holds = False
            # What misses its place must be picked up again, from where it fell.
            self.aims = self.aims[1:] if there else [self.now[0, 0:2].clone(), *self.aims]
        self.done = not self.aims
        if self.aims:
            self.now = torch.cat([self.now[:, :4], self.aims[0][None]], -1)

    def snapshot(self) -> Callable[[], None]:
        """Keep the present state; the returned function puts it back."""
        kept = dict(vars(self))
        return lambda: vars(self).update(kept)

    def state(self) -> Mapping[str, Any]:
        """``done``, ``steps`` taken, ``left`` legs, ``closed``, ``speed`` of the hand."""
        speed = float(self.now[0, 2:4].norm())
        return {"done": self.done, "steps": self.steps, "left": len(self.aims), "closed": self.closed, "speed": speed}
