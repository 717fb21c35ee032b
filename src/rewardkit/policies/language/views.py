"""The views of a language policy, what an adapter is, and a fingerprint of weights that changes when they do."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn

from rewardkit.policies.language.modes import adapter_off
from rewardkit.policies.views import frozen_copy

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_BLOCK = 2**16


def is_adapter(name: str) -> bool:
    """Whether a PEFT model's parameter of this name is off when adapters are off."""
    return "lora_" in name or ".modules_to_save." in name


def adapter_is_fresh(module: Any) -> bool:
    """Whether a LoRA model still computes its base: every B is 0, and nothing but LoRA was added."""
    names = [n for n, p in module.named_parameters() if p.requires_grad]
    if any("lora_" not in n for n in names) or any("lora_magnitude" in n for n in names):
        return False
    ups = [p for n, p in module.named_parameters() if "lora_B" in n or "lora_embedding_A" in n]
    return bool(ups) and all(not bool(p.detach().any()) for p in ups)


def _words(p: Tensor) -> Tensor:
    """The bits of a tensor, eight bytes a number, those that are left over one element a number: long ``[N]``."""
    bits = p.detach().contiguous().flatten()
    each = 8 // bits.element_size()
    bits = bits if bits.storage_offset() % each == 0 else bits.clone()
    whole = len(bits) // each * each
    left = bits[whole:].view(_INTEGERS[bits.element_size()]).long()
    return torch.cat([bits[:whole].view(torch.long), left]) if len(left) else bits.view(torch.long)


def fingerprint(parameters: Iterable[tuple[str, Tensor]]) -> str:
    """16 hexadecimal digits of names, types, shapes and every bit of the values; the same in every process.

    A sum of 64-bit products with odd weights, which wrap around: exact in any order, on any device, one pass; a change
    of a single element always shows.
    """
    known, sums = hashlib.blake2b(digest_size=8), []
    odd: dict[torch.device, Tensor] = {}
    for name, p in parameters:
        known.update(f"{name}:{p.dtype}:{tuple(p.shape)};".encode())
        words = _words(p)
        if p.device not in odd:
            odd[p.device] = torch.arange(_BLOCK, device=p.device) * 0x5851F42D4C957F2D | 1
        whole = len(words) // _BLOCK * _BLOCK
        blocks = (words[:whole].view(-1, _BLOCK) * odd[p.device]).sum(1)
        every = torch.cat([blocks, (words[whole:] * odd[p.device][: len(words) - whole]).sum(0, keepdim=True)])
        sums.append((every * (torch.arange(len(every), device=p.device) * 0x2545F4914F6CDD1D | 1)).sum())
    for total in sums:
        known.update(int(total).to_bytes(8, "little", signed=True))
    return known.hexdigest()


class LanguageViews:
    """``at``, ``keep`` and ``version`` of :class:`LanguagePolicy`; an adapter that is switched off is a view too."""

    module: nn.Module
    name: str
    view: str
    _views: dict[str, Self]
    _known_version: tuple[int, str] | None

    @property
    def version(self) -> str:
        """A fingerprint of the weights in use: 16 hexadecimal digits, the same in every process."""
        off = self.view == "adapter_off"
        used = [(n, p) for n, p in self.module.named_parameters() if not (off and is_adapter(n))]
        # A view is written to seldom (a moving average is): it is read again only after that.
        writes = sum(p._version for _, p in used)
        if self._known_version is None or self._known_version[0] != writes or self.view == "live":
            self._known_version = (writes, fingerprint(used))
        return self._known_version[1]

    def at(self, view: str) -> Self:
        """The policy with other weights: ``live``, ``start``, ``adapter_off`` (PEFT models) or a view that was kept.

        All but ``live`` are frozen: they never train, carry no gradient and evaluate without dropout.

        Raises:
            KeyError: for a view that there is not.
        """
        if view in ("live", self.view):
            return self
        if view not in self._views:
            hint = "; it was built with keep_start=False" if view == "start" else ""
            raise KeyError(f"{self.name} has no view {view!r}; it has {sorted(['live', *self._views])}{hint}")
        return self._views[view]

    def keep(self, view: str) -> Self:
        """Freeze a copy of the present weights (of the adapter alone, for PEFT) under ``view``."""
        if view in ("live", "adapter_off"):
            raise ValueError(f"the view {view!r} is not a copy and cannot be kept")
        self._views[view] = self._twin(view, frozen_copy(self.module))
        return self._views[view]

    def _twin(self, view: str, module: nn.Module) -> Self:
        twin = copy.copy(self)
        twin.view, twin.module, twin._views, twin._known_version = view, module, {}, None
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy with weights of its own; frozen views are shared: keep one anew in the copy before writing to it."""
        twin = self._twin(self.view, copy.deepcopy(self.module, memo))
        memo[id(self)] = twin
        twin._views = {
            name: v if v.view != "adapter_off" else v._twin(v.view, twin.module) for name, v in self._views.items()
        }
        return twin

    @contextmanager
    def _weights(self) -> Iterator[None]:
        """The weights of this view in place; nothing but ``live`` gives gradients."""
        if self.view == "live":
            yield
        elif self.view == "adapter_off":
            with torch.no_grad(), adapter_off(self.module):
                yield
        else:
            with torch.no_grad():
                yield
