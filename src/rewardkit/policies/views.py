"""Frozen copies of a small policy's weights by name; language policies have their own, for adapters."""

from __future__ import annotations

import copy
from typing import Self

from torch import nn


class Views:
    """``at``, ``keep`` and ``version`` for a policy that is nothing but ``self.module``."""

    module: nn.Module
    _views: dict[str, Self]

    def keep_views(self) -> None:
        """Begin with the view ``start``, the weights as they are."""
        self._views = {}
        self.keep("start")

    @property
    def version(self) -> str:
        """Changes with every in-place update of the weights."""
        return f"{id(self.module)}:{sum(p._version for p in self.module.parameters())}"

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
        """Freeze a copy of the present weights under ``view``."""
        frozen = copy.copy(self)
        frozen.module = copy.deepcopy(self.module)
        frozen.module.requires_grad_(False)
        frozen._views = {}
        self._views[view] = frozen
        return frozen
