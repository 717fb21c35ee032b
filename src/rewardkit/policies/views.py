"""Frozen copies of a policy's weights, by name."""

from __future__ import annotations

import copy
from typing import Self

from torch import nn

from rewardkit.policies.modes import is_peft


def frozen_copy(module: nn.Module) -> nn.Module:
    """A copy that does not train, in evaluation mode. Of a PEFT model only what trains is copied."""
    shared = {id(p): p for p in module.parameters() if not p.requires_grad} if is_peft(module) else {}
    twin = copy.deepcopy(module, shared)
    return twin.requires_grad_(False).eval()


class Views:
    """``at``, ``keep`` and ``version`` for a policy that is nothing but ``self.module``."""

    module: nn.Module
    _views: dict[str, Self]
    _kept: int = 0
    _number: int = 0

    def keep_views(self) -> None:
        """Begin with the view ``start``, the weights as they are."""
        self._views = {}
        self.keep("start")

    @property
    def version(self) -> str:
        """Changes with every in-place update of the weights, and with every view that is kept under an old name."""
        return f"{id(self.module)}:{self._number}:{sum(p._version for p in self.module.parameters())}"

    def at(self, view: str) -> Self:
        """The policy with the weights of a view: ``live``, ``start`` or one that was kept.

        Raises:
            KeyError: for a view that was never kept.
        """
        if view == "live":
            return self
        if view not in self._views:
            raise KeyError(f"{type(self).__name__} has no view {view!r}; it has {sorted(['live', *self._views])}")
        return self._views[view]

    def keep(self, view: str) -> Self:
        """Freeze a copy of the present weights (of the adapter alone, for PEFT) under ``view``."""
        frozen = copy.copy(self)
        frozen.module = frozen_copy(self.module)
        frozen._views = {}
        # A copy may stand where an earlier one, that is gone, has stood: its id alone tells them not apart.
        self._kept += 1
        frozen._number = self._kept
        self._views[view] = frozen
        return frozen
