"""What the processes of one run tell each other. With one process every function is the identity."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn

PLAIN = {"NO", "MULTI_CPU", "MULTI_GPU", "MULTI_XPU", "MULTI_NPU", "MULTI_MLU", "MULTI_HPU", "MULTI_MUSA", "MULTI_SDAA"}


class Ranks:
    """The processes of one run, each with a whole copy of the weights.

    Gradients are summed over ranks after the last backward of a step, in one flat transfer a dtype. There is no
    wrapper around the module, so ranks may have different numbers of micro-batches, parameters may go unused, and
    several learners share a process group; the price is that the transfer does not overlap with the backward pass.

    Args:
        accelerator: an ``accelerate.Accelerator``; ``None`` makes one, which follows ``accelerate launch``.

    Raises:
        NotImplementedError: under an engine that owns the weights or gradients (FSDP, DeepSpeed, Megatron): those
            drop or average what is accumulated by hand, so the exact sum over micro-batches would not hold.
    """

    def __init__(self, accelerator: Accelerator | None = None) -> None:
        self.accelerator = Accelerator() if accelerator is None else accelerator
        kind = str(getattr(self.accelerator.distributed_type, "value", self.accelerator.distributed_type))
        if kind not in PLAIN:
            raise NotImplementedError(
                f"Learner keeps a whole copy of the weights on every rank and sums gradients itself; under {kind} it "
                "cannot. Use plain multi-process launching (accelerate launch --multi_gpu) or LoRA."
            )

    @property
    def count(self) -> int:
        """How many processes there are."""
        return int(self.accelerator.num_processes)

    @property
    def index(self) -> int:
        """Which one this is."""
        return int(self.accelerator.process_index)

    @property
    def main(self) -> bool:
        """Whether this one writes files and talks."""
        return self.index == 0

    def sum(self, value: Tensor) -> Tensor:
        """The sum of ``value`` over ranks, on all of them."""
        return value if self.count == 1 else self.accelerator.reduce(value, "sum")

    def gather(self, thing: Any) -> list[Any]:
        """Every rank's ``thing``, in order of the ranks."""
        return [thing] if self.count == 1 else list(gather_object([thing]))

    def broadcast(self, thing: Any) -> Any:
        """The main rank's ``thing``, on all of them."""
        return thing if self.count == 1 else broadcast_object_list([thing])[0]

    def wait(self) -> None:
        """Until every rank is here."""
        self.accelerator.wait_for_everyone()

    def sum_gradients(self, params: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over ranks; one that is absent here counts as zero."""
        if self.count == 1:
            return
        by_dtype: dict[torch.dtype, list[nn.Parameter]] = {}
        for p in params:
            if p.grad is None:
                p.grad = torch.zeros_like(p)
            by_dtype.setdefault(p.dtype, []).append(p)
        for group in by_dtype.values():
            flat = self.sum(torch.cat([p.grad.flatten() for p in group if p.grad is not None]))
            for p, piece in zip(group, flat.split([p.numel() for p in group]), strict=True):
                p.grad = piece.view_as(p).clone()

    def same_weights(self, module: nn.Module) -> None:
        """Give every rank the main rank's parameters and buffers."""
        if self.count > 1:
            with torch.no_grad():
                for tensor in [*module.parameters(), *module.buffers()]:
                    torch.distributed.broadcast(tensor.data, src=0)
