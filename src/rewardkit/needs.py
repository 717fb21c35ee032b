"""Call by name: a function's positional parameter names are its needs.

Objectives and credit rules are pure functions over named tensors. Keyword-only parameters are hyper-parameters.
"""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple


class Column(NamedTuple):
    """A hyper-parameter read from the rollout's tensor of this name: ``partial(sft, weight=Column("weight"))``.

    Args:
        name: of a tensor with one entry a row. of: ``row`` takes it as it is; for hyper-parameters with one entry a
            pair, ``better`` takes it at the better row of each pair, and ``difference`` the better minus the worse:
            ``partial(dpo, margin=Column("strength", of="better"))``.
    """

    name: str
    of: Literal["row", "better", "difference"] = "row"

    def read(self, names: Mapping[str, Any]) -> Any:
        """The hyper-parameter's value; pairs are ``names["pairs"]``."""
        values = names[self.name]
        if self.of == "row":
            return values
        better = values[names["pairs"][:, 0]]
        return better if self.of == "better" else better - values[names["pairs"][:, 1]]


def name_of(fn: Callable[..., Any]) -> str:
    """The name of a function under its partials."""
    inner: Any = fn
    while isinstance(inner, functools.partial):
        inner = inner.func
    return getattr(inner, "__name__", type(inner).__name__)


_PARAMETERS: weakref.WeakKeyDictionary[Callable[..., Any], tuple[inspect.Parameter, ...]] = weakref.WeakKeyDictionary()


def parameters(fn: Callable[..., Any]) -> tuple[inspect.Parameter, ...]:
    """The parameters of a function, those that a partial has bound with their bound values; read once a function.

    Reading a signature takes longer than a small loss does, and a step asks several times.
    """
    found = _PARAMETERS.get(fn)
    if found is None:
        found = _PARAMETERS[fn] = tuple(inspect.signature(fn).parameters.values())
    return found


def needs(fn: Callable[..., Any]) -> tuple[str, ...]:
    """Names that a function asks for: its positional parameters that no partial has bound.

    >>> def loss(logps, ref_logps, *, beta=0.1): ...
    >>> needs(loss)
    ('logps', 'ref_logps')
    """
    return tuple(p.name for p in parameters(fn) if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD)


def call(fn: Callable[..., Any], names: Mapping[str, Any]) -> Any:
    """Call ``fn`` with its needs from ``names``; parameters with a default may be absent; :class:`Column` s are filled.

    Raises:
        KeyError: naming the function, the missing tensor and what there is.
    """
    arguments = {}
    for p in parameters(fn):
        if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD:
            if p.name in names:
                arguments[p.name] = names[p.name]
            elif p.default is inspect.Parameter.empty:
                raise KeyError(f"{name_of(fn)} needs {p.name!r}; there are only {sorted(names)}")
        elif isinstance(p.default, Column):
            if p.default.name not in names:
                raise KeyError(f"{name_of(fn)} reads {p.name} from {p.default.name!r}; there are only {sorted(names)}")
            arguments[p.name] = p.default.read(names)
    return fn(**arguments)
