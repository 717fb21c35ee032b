"""A plain function as a reward: TRL's signature, verl's, or one sample to one number.

The form is told by parameter names:

* TRL: ``fn(prompts, completions, completion_ids, **columns)`` for the whole batch, columns being the keys of
  ``sample.hidden`` and, as in TRL, ``trainer_state``, ``log_extra(name, list)``, ``log_metric(name, value)``. Prompts
  and completions are strings, or message lists where the prompt is one. ``None`` in the result is a row without a
  label. Each of the three is ``ctx[name]`` where the caller gives it; else metrics are logged beside the reward, and
  extra columns go nowhere.
* verl: ``compute_score(data_source, solution_str, ground_truth, extra_info)`` for a row, from ``sample.hidden``; a dict
  in the result has its ``score`` read and its other numbers logged.
* ``fn(sample) -> float | None`` for a row.

An exception is status ERROR with its message, never a number: in its row, or in every row where the function takes the
whole batch. What is wrong with the function itself (a column that is not there, a wrong number of rewards) is raised.
What it logs is in ``Scores.before``, so that :func:`rewardkit.rewards.base.describe` shows its mean.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Literal

import torch

from rewardkit.needs import name_of
from rewardkit.registry import entry
from rewardkit.rewards.base import SCOPES, RewardBase
from rewardkit.types import ERROR, MISSING, OK, Cost, Rollout, Sample, Scores

log = logging.getLogger(__name__)

Form = Literal["trl", "verl", "sample"]


def form_of(fn: Callable[..., Any]) -> Form:
    """Which of the three forms a function has, by its parameter names.

    Raises:
        TypeError: naming the parameters found and the forms there are.
    """
    parameters = inspect.signature(fn).parameters.values()
    names = {p.name for p in parameters}
    if names & {"prompts", "completions", "completion_ids"}:
        return "trl"
    if "solution_str" in names:
        return "verl"
    required = [
        p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if len(required) == 1:
        return "sample"
    if not required and any(p.kind is p.VAR_KEYWORD for p in parameters):
        return "trl"
    raise TypeError(
        f"{name_of(fn)}({', '.join(sorted(names))}) is no reward function: it takes (prompts, completions, **columns) "
        "as in TRL, (data_source, solution_str, ground_truth, extra_info) as in verl, or one sample"
    )


def _is_messages(x: Any) -> bool:
    return (
        isinstance(x, Sequence) and not isinstance(x, str) and bool(x) and isinstance(x[0], Mapping) and "role" in x[0]
    )


def text_of(output: Any) -> str:
    """An output as text: a string as it is, messages as their contents joined by blank lines.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(output, str):
        return output
    if _is_messages(output):
        return "\n\n".join(str(m.get("content") or "") for m in output)
    raise TypeError(f"an output that is {type(output).__name__} has no text")


def completion_of(sample: Sample) -> Any:
    """The output in the form TRL gives it: messages where the prompt is messages, else text."""
    if _is_messages(sample.asked):
        return sample.output if _is_messages(sample.output) else [{"role": "assistant", "content": sample.output}]
    return text_of(sample.output) if _is_messages(sample.output) else sample.output


def _number(value: Any) -> float | None:
    """A row's value as a number; ``None`` for no label.

    Raises:
        Exception: whatever makes it no number.
    """
    if isinstance(value, BaseException):
        raise value
    if isinstance(value, Mapping):
        if "score" not in value:
            raise ValueError(f"the function returned a dict without 'score': {sorted(value)}")
        value = value["score"]
    if value is None:
        return None
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"the function returned {number}")
    return number


def _extra_numbers(values: Sequence[Any]) -> dict[str, list[Any]]:
    """The numbers beside ``score`` in verl's dicts: name to one value a row, ``None`` where a row has none."""
    rows = [v if isinstance(v, Mapping) else {} for v in values]
    names = dict.fromkeys(k for row in rows for k, x in row.items() if k != "score" and isinstance(x, (int, float)))
    return {k: [row.get(k) for row in rows] for k in names}


def _column(values: Sequence[Any], device: torch.device) -> Scores:
    """A logged number a row as scores; rows without a finite one are MISSING."""
    known = [isinstance(v, (int, float)) and math.isfinite(v) for v in values]
    return Scores(
        torch.tensor([float(v) if k else 0.0 for v, k in zip(values, known, strict=True)], device=device),
        status=torch.tensor([OK if k else MISSING for k in known], device=device),
    )


def _in_a_loop(make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine to its end in a thread of its own: the caller may already be inside an event loop."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(make())).result()


class FunctionReward(RewardBase):
    """See :func:`function_reward`."""

    concurrent = False

    def __init__(self, fn: Callable[..., Any], name: str | None, scope: str) -> None:
        if scope not in SCOPES:
            raise ValueError(f"function_reward(scope=) must be one of {SCOPES}, not {scope!r}")
        self.fn, self.form = fn, form_of(fn)
        self.name, self.scope = name or name_of(fn), scope
        self.concurrent = inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__)
        parameters = inspect.signature(fn).parameters.values()
        self._open = any(p.kind is p.VAR_KEYWORD for p in parameters)
        self._accepts = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        self._requires = {n for n in self._accepts if inspect.signature(fn).parameters[n].default is inspect._empty}

    def __call__(self, rollout: Rollout, ctx: Mapping[str, Any] | None = None) -> Scores:
        began = time.perf_counter()
        if not len(rollout):
            return Scores(torch.zeros(0, device=rollout.mask.device))
        logged: dict[str, list[float]] = {}
        values = self._batch(rollout, ctx or {}, logged) if self.form == "trl" else self._rows(rollout.samples)
        scores = self._scores(values, rollout, time.perf_counter() - began)
        columns = {name: [sum(x) / len(x)] * len(rollout) for name, x in logged.items()} | _extra_numbers(values)
        return replace(scores, before={k: _column(x, rollout.mask.device) for k, x in columns.items()})

    def _fit(self, arguments: dict[str, Any]) -> dict[str, Any]:
        missing = self._requires - set(arguments)
        if missing:
            raise ValueError(
                f"reward function {self.name!r} asks for {sorted(missing)}; the rows have {sorted(arguments)}: add the "
                "column to the data, or give the parameter a default"
            )
        return arguments if self._open else {k: v for k, v in arguments.items() if k in self._accepts}

    def _batch(self, rollout: Rollout, ctx: Mapping[str, Any], logged: dict[str, list[float]]) -> list[Any]:
        """The function's value a row, or the exception that it raised in every row; metrics go to ``logged``."""
        samples = rollout.samples
        keys = list(dict.fromkeys(k for s in samples for k in s.hidden))
        state = SimpleNamespace(global_step=0, max_steps=0, epoch=0.0)
        state.global_step, state.max_steps = ctx.get("step", 0), ctx.get("steps", 0)
        ids = rollout.inputs.get("output_ids")
        arguments = self._fit(
            {
                **{k: [s.hidden.get(k) for s in samples] for k in keys},
                "prompts": [s.asked for s in samples],
                "completions": [completion_of(s) for s in samples],
                "completion_ids": [None] * len(samples) if ids is None else [list(row) for row in ids],
                "trainer_state": ctx.get("trainer_state", state),
                "log_extra": ctx.get("log_extra", lambda name, column: None),
                "log_metric": ctx.get(
                    "log_metric", lambda name, value: logged.setdefault(name, []).append(float(value))
                ),
            }
        )
        try:
            found = _in_a_loop(lambda: self.fn(**arguments)) if self.concurrent else self.fn(**arguments)
        except Exception as error:
            log.warning("reward function %r failed on all %d rows", self.name, len(samples), exc_info=error)
            return [error] * len(samples)
        values = list(found)
        if len(values) != len(samples):
            raise ValueError(f"reward function {self.name!r} returned {len(values)} rewards for {len(samples)} rows")
        return values

    def _row_arguments(self, sample: Sample) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self.form == "sample":
            return (sample,), {}
        hidden = sample.hidden
        nested = hidden.get("reward_model")
        arguments = {"solution_str": text_of(sample.output), "extra_info": hidden.get("extra_info", dict(hidden))}
        if "ground_truth" in hidden:
            arguments["ground_truth"] = hidden["ground_truth"]
        elif isinstance(nested, Mapping) and "ground_truth" in nested:
            arguments["ground_truth"] = nested["ground_truth"]
        if "data_source" in hidden:
            arguments["data_source"] = hidden["data_source"]
        return (), self._fit(arguments)

    def _rows(self, samples: Sequence[Sample]) -> list[Any]:
        """The function's value a row, or the exception that it raised."""
        if self.concurrent:

            async def guarded(sample: Sample) -> Any:
                positional, named = self._row_arguments(sample)
                return await self.fn(*positional, **named)

            async def all_rows() -> list[Any]:
                return await asyncio.gather(*(guarded(s) for s in samples), return_exceptions=True)

            return _in_a_loop(all_rows)
        values: list[Any] = []
        for sample in samples:
            try:
                positional, named = self._row_arguments(sample)
                values.append(self.fn(*positional, **named))
            except Exception as error:
                values.append(error)
        return values

    def _scores(self, values: list[Any], rollout: Rollout, seconds: float) -> Scores:
        numbers, status = [], []
        why: list[str | None] = []
        for value in values:
            message = None
            try:
                number = _number(value)
                state = MISSING if number is None else OK
            except Exception as error:
                number, state, message = None, ERROR, f"{type(error).__name__}: {error}"
            numbers.append(0.0 if number is None else number)
            status.append(state)
            why.append(message)
        device = rollout.mask.device
        return Scores(
            torch.tensor(numbers, device=device),
            why=why if any(why) else None,
            status=torch.tensor(status, device=device),
            cost=Cost(calls=len(values), seconds=seconds),
        )


@entry("rewards:function_reward", tags=("adapter",))
def function_reward(fn: Callable[..., Any], *, name: str | None = None, scope: str = "sample") -> FunctionReward:
    """A plain function as a reward; see the module for the three forms.

    ``async`` functions are awaited: rows beside each other, and several such rewards of a sum at the same time.

    ``None`` says that a row has no label yet, and a sum with such a part leaves the row unscored. TRL sums what there
    is instead: where ``None`` means that the function does not apply to the row, add it as
    ``function_reward(fn).otherwise(0.0, of="missing")``.

    Args:
        fn: the function, or an object with ``__call__``. name: default the function's.
        scope: ``group`` or ``batch`` where the function compares rows and must see them together.

    Raises:
        TypeError: if the parameters fit none of the forms.

    >>> def shorter(completions, **kwargs):
    ...     return [-float(len(c)) for c in completions]
    >>> function_reward(shorter)(Rollout([Sample("Hi", "Hello!")], torch.ones(1, 1))).outcome.tolist()
    [-6.0]
    """
    return FunctionReward(fn, name, scope)
