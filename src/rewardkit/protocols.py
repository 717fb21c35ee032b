"""The protocols: what a policy, a reward, an environment, guidance, a source of prompts and an annotator must do.

They are structural: a class needs the methods, not the base class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from rewardkit.types import Judgement, Rollout, Sample, Scores


@dataclass(frozen=True, init=False)
class Against:
    """A function of several policies' outputs at the same positions, for :data:`Want`: none exists beyond a chunk.

    Args:
        fn: ``fn(outputs_chunk, *outputs_of_the_others, targets_chunk) -> [chunk, ...]``; the result has its
            ``__name__``.
        others: the other policies, at least one, of the same kind and vocabulary; evaluated without gradients.
    """

    fn: Callable[..., Tensor]
    others: tuple[Any, ...]

    def __init__(self, fn: Callable[..., Tensor], *others: Any) -> None:
        if not others:
            raise ValueError("Against needs another policy; a function of one policy's outputs is a Want by itself")
        object.__setattr__(self, "fn", fn)
        object.__setattr__(self, "others", others)

    @property
    def __name__(self) -> str:
        return self.fn.__name__


Want = str | Callable[..., Tensor] | Against
"""A name (``logps``, ``entropy``, ``values``, ``scores``) or ``fn(outputs_chunk, targets_chunk) -> [chunk, ...]``."""


@runtime_checkable
class Model(Protocol):
    """Anything with weights that can be evaluated on a rollout: a policy, a critic, a reward model."""

    @property
    def module(self) -> nn.Module:
        """The weights, as one module: what an optimiser sees and a checkpoint holds."""
        ...

    def evaluate(self, rollout: Rollout, want: Sequence[Want] = ("logps",)) -> dict[str, Tensor]:
        """Tensors by name with gradients: ``[B, T]``, or ``[B]`` for scores. Dropout follows ``module.training``.

        A callable in ``want`` is returned under its ``__name__``.
        """
        ...


@runtime_checkable
class Policy(Model, Protocol):
    """A generator with a time axis."""

    def sample(self, start: Sequence[Any], n: int = 1, *, sampling: Any = None, seed: int | None = None) -> Rollout:
        """``n`` outputs for each start, rows of one start standing together with one group number.

        Args:
            start: prompts, or partial :class:`Sample` s to continue.
            n: outputs a start.
            sampling: the policy's own sampling options; ``None`` for its defaults.
            seed: makes the draw a function of the weights, the starts and this number.
        """
        ...

    def encode(self, samples: Sequence[Sample]) -> Rollout:
        """Teacher-force any (prompt, output): offline data, references, other models' text."""
        ...

    def at(self, view: str) -> Policy:
        """The same code with other weights: ``live``, ``start``, ``adapter_off`` or a name given to :meth:`keep`."""
        ...

    def keep(self, view: str) -> Policy:
        """Freeze a copy of the present weights under ``view`` and return it."""
        ...

    @property
    def version(self) -> str:
        """Changes whenever the weights do; keys cached log-probs."""
        ...


@runtime_checkable
class Enumerable(Protocol):
    """A policy small enough to list: the oracle for everything else."""

    def enumerate(self, prompt: Any) -> tuple[list[Sample], Tensor]:
        """Every output of ``prompt`` with its probability ``[N]`` (with gradients)."""
        ...


@runtime_checkable
class State(Protocol):
    """``N`` outputs of a :class:`Stepwise` policy, each as far as it has come.

    States are values: a step makes a new one, and the old one may be stepped again. The random generator alone is
    shared by a state and those made from it.
    """

    @property
    def done(self) -> Tensor:
        """Which rows are finished: bool ``[N]``."""
        ...

    def __len__(self) -> int: ...

    def select(self, rows: Tensor) -> State:
        """These rows, long ``[M]``, in this order: a row that stands twice is forked, one that does not is dropped."""
        ...


@runtime_checkable
class Stepwise(Protocol):
    """A policy that can be advanced one action at a time, for guidance and search; ``N`` states at once.

    Nothing is detached: where the model is differentiable, so are the actions, the states and the outputs. Callers who
    need no gradients say ``torch.no_grad()``.
    """

    def start(self, prompts: Sequence[Any], *, sampling: Any = None, seed: int | None = None) -> Any:
        """The :class:`State` of one row a prompt, before the first action.

        Args:
            prompts: or :class:`Sample` s, partial ones where the policy continues those. sampling, seed: as in
                :meth:`Policy.sample`; the state remembers both.
        """
        ...

    def propose(self, state: Any, k: int = 1) -> tuple[Any, Tensor | None]:
        """``k`` actions drawn for each row, ``[N, k, ...]``, and their log-probs ``[N, k]`` in nats, as
        :meth:`Policy.evaluate` counts them; ``None`` where the step is deterministic. Those of finished rows mean
        nothing; their log-prob is 0."""
        ...

    def step(self, state: Any, actions: Any) -> Any:
        """The state after one action a row, ``[N, ...]``; finished rows stay as they are."""
        ...

    def look(self, state: Any) -> list[Sample]:
        """The ``N`` outputs as they stand, for a reward to score: the final ones of finished rows; else the text so
        far, the clean output that a noisy one most probably becomes."""
        ...


@runtime_checkable
class Env(Protocol):
    """Gymnasium's environment, with what search and grounded rewards need besides.

    A text environment is one whose observations and actions are messages and that leaves rewards to rewards: see
    :class:`TextEnv`, whose :meth:`snapshot` and :meth:`state` are these.
    """

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """First observation and info."""
        ...

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Observation, reward, terminated, truncated, info."""
        ...

    def snapshot(self) -> Callable[[], None]:
        """Keep the present state; the returned function puts it back, as often as it is called."""
        ...

    def state(self) -> Mapping[str, Any]:
        """What is the case, for rewards that read the system and not what it shows."""
        ...


@runtime_checkable
class TextEnv(Protocol):
    """An environment in messages, for one game at a time: ``policy.sample(starts, n, env=make)`` calls ``make()`` once
    a row. Messages are OpenAI's, tool calls included."""

    def reset(self, sample: Sample) -> list[dict[str, Any]]:
        """The messages that the policy sees first; a key ``tools`` in one of them offers tools (JSON schemas).

        Args:
            sample: the start. The environment may read ``hidden``, and the policy sees what it makes of it.
        """
        ...

    def step(self, message: dict[str, Any]) -> tuple[list[dict[str, Any]], bool]:
        """What is said to the policy's message, and whether the game is over; then nothing is said any more."""
        ...

    def snapshot(self) -> Callable[[], None]:
        """Keep the present state; the returned function puts it back, as often as it is called."""
        ...

    def state(self) -> Mapping[str, Any]:
        """What is the case; at the end of a game it is ``hidden["state"]`` of the sample, for rewards."""
        ...


@runtime_checkable
class Reward(Protocol):
    """Scores the rows of a rollout.

    ``scope`` says how much it must see at once: ``sample`` (any slice), ``group``, ``family`` or ``batch`` (the whole
    gathered batch). A reward that holds a policy sees it live unless that policy is frozen.
    """

    @property
    def name(self) -> str: ...

    @property
    def scope(self) -> str: ...

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores: ...


class Guidance(Protocol):
    """Makes a policy of a policy and a reward, as :func:`rewardkit.guidance.best_of_n.best_of_n` does: the result is
    sampled, scored and distilled like any other."""

    def __call__(self, policy: Policy, reward: Reward, *args: Any, **options: Any) -> Policy: ...


@runtime_checkable
class Prompts(Protocol):
    """Where the next prompts come from, and where what became of them is told. Its state resumes with the run."""

    def draw(self, n: int) -> list[Sample]:
        """``n`` samples without output; ``hidden`` carries what only rewards may see."""
        ...

    def feedback(self, rollout: Rollout, scores: Scores) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@runtime_checkable
class Annotator(Protocol):
    """A person, a model, a simulator or the web app."""

    def ask(self, judgements: Sequence[tuple[Sample, ...]]) -> None:
        """Queue items to be judged."""
        ...

    def poll(self) -> list[Judgement]:
        """The judgements that have arrived since the last call."""
        ...
