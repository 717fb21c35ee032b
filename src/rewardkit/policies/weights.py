"""Weights as plain tensors by name: what :mod:`rewardkit.merging` works on, and how its result gets back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rewardkit.merging.states import State, same_names


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters (tied ones once) and the buffers that a checkpoint holds, by name: the module's own, not copies."""
    params = dict(module.named_parameters())
    saved = module.state_dict(keep_vars=True)
    return params | {n: b for n, b in module.named_buffers() if n in saved}


def read(model: Any) -> dict[str, Tensor]:
    """A copy of the weights of a policy, a view of one, or any other model.

    >>> from rewardkit.policies.table import TablePolicy
    >>> read(TablePolicy(["x"], ["a", "b"]))["logits"].tolist()
    [[[0.0, 0.0]]]
    """
    return {n: t.detach().clone() for n, t in tensors_of(model.module).items()}


@torch.no_grad()
def write(model: Any, state: State) -> None:
    """Put a state into a policy, or into a view that ``policy.keep`` made: its version changes, so log-probs that were
    cached for it are computed anew.

    A learner takes a state by ``learner.load(state, optimizer=...)``.

    Args:
        model: a policy, a view or any other model. state: of the same kind of model.

    Raises:
        ValueError: for a state of another model, or a view that shares its weights with the live policy.

    >>> from rewardkit.policies.table import TablePolicy
    >>> policy = TablePolicy(["x"], ["a", "b"])
    >>> anchor = policy.keep("ema")
    >>> write(anchor, {"logits": torch.ones(1, 1, 2)})
    >>> policy.logits.sum().item(), policy.at("ema").logits.sum().item()
    (0.0, 2.0)
    """
    if getattr(model, "view", None) == "adapter_off":
        raise ValueError("the view 'adapter_off' has the live policy's own weights: write to one that policy.keep made")
    own = tensors_of(model.module)
    same_names(own, state)
    for name, tensor in own.items():
        tensor.copy_(state[name])
