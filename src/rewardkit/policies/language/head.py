"""Hidden states to what is wanted of the logits, in chunks: ``[B, T, V]`` never exists."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rewardkit.policies.modes import evaluating
from rewardkit.protocols import Against, Want

LogitsFn = Callable[[Tensor, Tensor], Tensor]
"""``fn(logits [N, V], targets [N]) -> [N, ...]``."""
ToLogits = Callable[[Tensor], Tensor]
"""Hidden states to logits, ``[n, H] -> [n, V]``."""


def logps(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Log-prob of each target: ``[N]``."""
    return logits_NV.log_softmax(-1).gather(-1, targets_N[:, None])[:, 0]


def entropy(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Entropy in nats: ``[N]``."""
    logps_NV = logits_NV.log_softmax(-1)
    return -(logps_NV.exp() * logps_NV).sum(-1)


def wanted(want: Want) -> LogitsFn | Against:
    """The function of a name in ``want``.

    Raises:
        KeyError: for an unknown name.
    """
    if not isinstance(want, str):
        return want
    known: dict[str, LogitsFn] = {"logps": logps, "entropy": entropy}
    if want not in known:
        raise KeyError(f"a language policy cannot evaluate {want!r}: it knows {sorted(known)} and functions of logits")
    return known[want]


def project(model: Any, hidden: Tensor) -> Tensor:
    """The model's logits of hidden states: output embedding, then the scale and soft cap that its config names."""
    logits = model.get_output_embeddings()(hidden)
    config = model.config
    if getattr(config, "logit_scale", None) is not None:  # Cohere
        logits = logits * config.logit_scale
    if getattr(config, "logits_scaling", None) is not None:  # Granite
        logits = logits / config.logits_scaling
    if getattr(config, "final_logit_softcapping", None) is not None:  # Gemma 2
        logits = torch.tanh(logits / config.final_logit_softcapping) * config.final_logit_softcapping
    return logits


@torch.no_grad()
def can_project(model: Any) -> bool:
    """Whether :func:`project` gives this model's own logits, to the bit, on a probe of a few tokens."""
    decoder = getattr(model, model.base_model_prefix, None)
    if not isinstance(decoder, nn.Module) or decoder is model or model.get_output_embeddings() is None:
        return False
    device = next(model.parameters()).device
    ids = torch.arange(4, device=device)[None] % model.config.get_text_config().vocab_size
    with evaluating(model):
        hidden = decoder(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        own = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        if hidden.shape[-1] != model.get_output_embeddings().weight.shape[-1]:
            return False
        return torch.equal(project(model, hidden), own)


def chunk_rows(vocabulary: int, budget: int = 2**27) -> int:
    """Positions whose float32 logits fill ``budget`` bytes, at least 16."""
    return max(16, budget // (4 * vocabulary))


def evaluate_chunks(
    to_logits: ToLogits,
    states_NH: Tensor,
    targets_N: Tensor,
    functions: Sequence[LogitsFn | Against],
    *,
    temperature: float,
    chunk: int,
    others: Mapping[int, tuple[ToLogits, Tensor]] = MappingProxyType({}),
) -> list[Tensor]:
    """Each function of the float32 logits over ``temperature``, ``chunk`` positions at a time.

    Where there is more than one chunk and a graph is built, a chunk's logits are computed again in the backward pass
    and not kept.

    Args:
        to_logits: ``[n, H] -> [n, V]``. states_NH, targets_N: hidden states and the tokens they predict.
        others: the same of the other policies, by ``id``; what they give carries no gradient.

    Returns:
        one ``[N, ...]`` a function.
    """

    def warm(logits: Tensor) -> Tensor:
        return logits.float() if temperature == 1 else logits.float() / temperature

    def run(states: Tensor, targets: Tensor, start: int) -> tuple[Tensor, ...]:
        logits, theirs = warm(to_logits(states)), {}
        with torch.no_grad():
            for key, (project_other, other_NH) in others.items():
                theirs[key] = warm(project_other(other_NH[start : start + len(states)]))
        return tuple(
            fn.fn(logits, *(theirs[id(o)] for o in fn.others), targets)
            if isinstance(fn, Against)
            else fn(logits, targets)
            for fn in functions
        )

    starts = range(0, len(states_NH), chunk)
    pieces = list(zip(states_NH.split(chunk), targets_N.split(chunk), starts, strict=True))
    again = torch.is_grad_enabled() and len(pieces) > 1
    parts = [checkpoint(run, *piece, use_reentrant=False) if again else run(*piece) for piece in pieces]
    return [torch.cat(values) for values in zip(*parts, strict=True)]
