"""A PEFT model and its adapters-off base."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rewardkit.policies.modes import evaluating, is_peft


def plain(module: Any, *, adapter: bool = True) -> Any:
    """A module without PEFT: a copy with the adapter added into its weights, or left out; any other as it is."""
    if not is_peft(module):
        return module
    twin = copy.deepcopy(module)
    return twin.merge_and_unload() if adapter else twin.unload()


@contextmanager
def adapter_off(module: Any) -> Iterator[None]:
    """The base model of a PEFT model, in evaluation mode.

    Mode and ``requires_grad`` come back, also after an exception: PEFT's own context marks every weight of the
    active adapter as trainable when it leaves.
    """
    before = [(p, p.requires_grad) for p in module.parameters()]
    try:
        with evaluating(module), module.disable_adapter():
            yield
    finally:
        for p, flag in before:
            p.requires_grad_(flag)
