"""What was said: one prompt with one output; and what getting it took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Ended = Literal["done", "cut", "failed"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt with one output, which may still be partial.

    Args:
        prompt: what the policy saw: text, chat messages (``[{"role", "content"}, ...]``), a tensor, a start state.
        output: what it made of it: text, messages, tensor, trajectory. ``None`` where nothing was generated yet.
        source: the user's own words where ``prompt`` rewrites them. Rewards and judges read :attr:`asked`.
        hidden: gold answers, tests, references, facts, user id. Rewards may look, policies never.
        ended: ``done`` by itself, ``cut`` off (ran out of room or of time), or ``failed``.
    """

    prompt: Any
    output: Any = None
    source: Any = None
    hidden: Mapping[str, Any] = field(default_factory=dict)
    ended: Ended = "done"

    def __post_init__(self) -> None:
        if self.ended not in ("done", "cut", "failed"):
            raise ValueError(f"Sample.ended must be 'done', 'cut' or 'failed', not {self.ended!r}")
        if not isinstance(self.hidden, Mapping):
            raise ValueError(f"Sample.hidden must be a mapping, not {type(self.hidden).__name__}")

    @property
    def asked(self) -> Any:
        """The user's own words: ``source`` where there is one, else ``prompt``."""
        return self.prompt if self.source is None else self.source


@dataclass(frozen=True, slots=True)
class Cost:
    """What something took; costs add. Comparisons between methods are made at equal cost."""

    calls: int = 0
    tokens: int = 0
    gradients: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.calls + other.calls,
            self.tokens + other.tokens,
            self.gradients + other.gradients,
            self.seconds + other.seconds,
        )
