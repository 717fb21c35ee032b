"""The next batch is sampled while this one is scored: where that is allowed, and what a reward must not touch."""

from __future__ import annotations

import dis
import functools
import inspect
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import nn

from rewardkit.needs import name_of
from rewardkit.objectives.base import Loss
from rewardkit.protocols import Reward
from rewardkit.training.term import reads_of

LEAVES = (str, bytes, int, float, complex, type(None), type, types.ModuleType, types.BuiltinFunctionType)


def check_ahead(
    ahead: int, objective: Callable[..., Loss], reference: Any, reward: Reward, used: Iterable[Any]
) -> None:
    """A batch that was sampled before the last update is trained by an objective that weighs it, and sampled while
    nothing else uses what sampling uses.

    Args:
        ahead, objective, reference, reward: of :func:`rewardkit.loops.online.online`. used: the policy, the critic, the
            environment, the prompts; ``None`` for what there is not.

    Raises:
        ValueError: naming what stands against it.
    """
    if ahead != 1:
        raise ValueError(f"ahead is 0, or 1 for a turn ahead, not {ahead}")
    if "old_logps" not in reads_of(objective).required:
        raise ValueError(
            f"ahead=1 trains on outputs of the weights before the last update, and {name_of(objective)} has no "
            "importance ratio that allows for it: take an objective that reads old_logps, such as clipped, or ahead=0"
        )
    if reference == "last":
        raise ValueError("ahead=1: 'last' are not the weights that sampled: reference 'start' or a policy, or ahead=0")
    if reaches(reward, parts_of(x for x in used if x is not None)):
        raise ValueError(
            f"ahead=1 samples while the reward {reward.name!r} is computed, and that one uses the policy, the critic, "
            "the prompts or the environment itself: hold policy.keep(view), a copy, or ahead=0"
        )


def parts_of(things: Iterable[Any]) -> frozenset[int]:
    """Identities of things, and of all that a module is made of."""
    found: set[int] = set()
    for thing in things:
        module = getattr(thing, "module", None)
        found |= {id(thing)} | ({id(m) for m in module.modules()} if isinstance(module, nn.Module) else set())
    return frozenset(found)


def reaches(thing: Any, wanted: frozenset[int]) -> bool:
    """Whether ``thing`` holds one of the objects ``wanted``, by identity, at any depth: in attributes, containers,
    closures, bound methods and partials, or among the names that a function reads.

    >>> model = nn.Linear(1, 1)
    >>> def reward(completions, **_):
    ...     return [float(model.weight)] * len(completions)
    >>> reaches([reward], frozenset({id(model)})), reaches([reward], frozenset({id(nn.Linear(1, 1))}))
    (True, False)
    """
    seen: dict[int, Any] = {}  # kept, so that no number is given anew
    left = [thing]
    while left:
        one = left.pop()
        if id(one) in wanted:
            return True
        if id(one) in seen or isinstance(one, LEAVES):
            continue
        seen[id(one)] = one
        left += _held(one)
    return False


def _held(one: Any) -> Iterator[Any]:
    if isinstance(one, dict):
        yield from one.values()
    elif isinstance(one, (list, tuple, set, frozenset)):
        yield from one
    elif isinstance(one, functools.partial):
        yield from (one.func, one.args, one.keywords)
    elif isinstance(one, types.MethodType):
        yield from (one.__self__, one.__func__)
    elif isinstance(one, types.FunctionType):
        yield from (one.__defaults__, one.__kwdefaults__, one.__dict__)
        yield from (cell.cell_contents for cell in one.__closure__ or () if _filled(cell))
        yield from (one.__globals__[name] for name in _names(one.__code__) if name in one.__globals__)
    else:
        yield inspect.getattr_static(type(one), "__call__", None)
        yield getattr(one, "__dict__", None)


def _names(code: types.CodeType) -> Iterator[str]:
    """Global names that a function reads, and the functions inside it."""
    yield from (i.argval for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME"))
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False
